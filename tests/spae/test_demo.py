"""The demonstration's page: whole, self-contained, escaped; and every photograph with its licence."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from fake_tokenizer import FakeTokenizer
from PIL import Image

from spae.demo import PHOTOGRAPHS, read_credits, write_demo
from spae.errors import InputError


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.words: list[str] = []
        self.depth: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes["src"])
            assert attributes["alt"]
        elif tag not in ("meta", "br"):
            self.depth.append(tag)
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag

    def handle_data(self, data):
        if self.depth[-1:] == ["span"]:
            self.words.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = write_demo(FakeTokenizer(), "tiny & odd", tmp_path_factory.mktemp("demo"))
    return path.read_text("utf-8")


def test_page_is_whole_and_self_contained(page):
    parser = Page()
    parser.feed(page)
    count = len(read_credits())
    assert count >= 10
    assert not parser.depth
    assert len(parser.images) == count * (1 + 1 + 3)
    # No outside resources; the one link is to the service on the reader's own machine.
    assert [link for link in parser.links if not link.startswith("data:image/")] == ["http://127.0.0.1:8000/"]
    assert not re.search(r"https?://(?!127\.0\.0\.1:8000/)|@import|url\(", page)
    assert "{{" not in page
    image = Image.open(io.BytesIO(base64.b64decode(parser.images[1].partition(",")[2])))
    assert image.size == (16, 16)


def test_page_has_all_words_facts_and_credits(page):
    parser = Page()
    parser.feed(page)
    assert len(parser.words) == len(read_credits()) * 21
    assert set(parser.words) <= set(FakeTokenizer().vocabulary.words)
    assert "3,400 steps" in page
    assert "21 words" in page
    for credit in read_credits().values():
        assert credit.author.replace('"', "&quot;") in page
        assert credit.licence in page


def test_a_gguf_model_is_called_like_its_file(tmp_path):
    tokenizer = FakeTokenizer()
    model = {"format": "gguf", "file": "Some-1B.Q4_K.gguf", "name": "run 7 of 12"}
    tokenizer.vocabulary = dataclasses.replace(tokenizer.vocabulary, provenance={"model": model})
    assert "words of Some-1B.Q4_K<" in write_demo(tokenizer, "tiny", tmp_path).read_text("utf-8")


def test_text_is_escaped(page):
    assert "Tiny &lt;b&gt;LM&lt;/b&gt;" in page
    assert "tiny &amp; odd" in page
    assert "<b>" not in page


def test_progress_and_place_are_printed(tmp_path, capsys):
    path = write_demo(FakeTokenizer(), "tiny", tmp_path / "new" / "folder")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(str(path))
    assert "layers 1 to 3 decoded" in lines[-2]


def test_a_bundle_that_says_nothing_of_its_training(tmp_path):
    tokenizer = FakeTokenizer()
    tokenizer.info = {}
    assert "trained for" not in write_demo(tokenizer, "tiny", tmp_path).read_text("utf-8")


def test_steps_and_images_are_those_of_the_whole_training(tmp_path):
    tokenizer = FakeTokenizer()
    begun = {"config": {"optimizer": {"steps": 1_000}}, "images": 48_000}
    tokenizer.info = {"training": {"config": {"optimizer": {"steps": 20}}, "images": 300, "initial": begun}}
    page = write_demo(tokenizer, "tiny", tmp_path).read_text("utf-8")
    assert "1,020 steps" in page
    assert "48,000" in page


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        write_demo(FakeTokenizer(), "tiny", tmp_path / "file" / "page")


def test_every_photograph_is_credited():
    credits = read_credits()
    assert set(credits) == {path.name for path in PHOTOGRAPHS.glob("*.jpg")}
    for credit in credits.values():
        assert credit.licence in ("public domain", "CC0 1.0", "CC BY 2.0", "CC BY 4.0")
