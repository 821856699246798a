"""The demonstration: its episodes, its counting and its page, with a model that is quick; once with the real one."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from icl_runner import prompts
from icl_runner.cells import Call
from icl_runner.demo import experiments
from icl_runner.demo.experiments import KINDS, episodes
from icl_runner.demo.page import write_demo
from spae.demo import read_credits
from spae.errors import InputError
from spae.frozen_lm.writable import WritableWords


def test_episodes_ask_for_every_photograph_of_a_kind_and_never_for_one_in_context():
    made = episodes(list(read_credits()))
    assert len(made) == 3 * 4 * (3 + 4 - 2)
    kinds = {key: kind for kind, keys in KINDS.items() for key in keys}
    for one in made:
        assert [kinds[shot.key] for shot in one.support] == ["animal", "landscape"]
        assert kinds[one.query.key] == one.query.label
        assert one.other not in kinds
    assert len({one.id for one in made}) == len(made)
    # Each photograph of a kind is asked as often as any other of it.
    counts = {key: sum(one.query.key == key for one in made) for key in kinds}
    assert set(counts.values()) == {8, 9}
    assert {counts[key] for key in KINDS["animal"]} == {8}


class Tokens:
    """A tokenizer of whole words, each with the space before it."""

    def __init__(self):
        self.words: list[str] = []

    def encode(self, text):
        pieces = re.findall(r"\s?\S+|\s", text)
        for piece in pieces:
            if piece not in self.words:
                self.words.append(piece)
        return [self.words.index(piece) for piece in pieces]


class Fake:
    """Answers every constrained call with its first choice, by contrast with its last, and every free one with
    "animal"; counts calls."""

    name = "<fake>"

    def __init__(self):
        self.tokenizer = Tokens()
        self.batches: list[int] = []

    def encode(self, text):
        return self.tokenizer.encode(text)

    def writable(self, words):
        return WritableWords.of(words, self.tokenizer, "fake")

    def score(self, context, continuations):
        """A later token is likelier."""
        return [np.log(np.array([0.1 + 0.01 * ids[0]])) for ids in continuations]

    def generate(self, contexts, max_tokens, *, stop=(), constraints=None, against=None, contrast=None):
        self.batches.append(len(contexts))
        found = []
        for i, constraint in enumerate(constraints or [None] * len(contexts)):
            text, state = " animal", None
            if against is not None:
                assert sorted([*against[i], contexts[i]]) == sorted(contexts)
            if constraint is not None:
                text, state = "", constraint.start()
                while (allowed := constraint.allowed(state)).size:
                    chosen = int(allowed[0 if against is None else -1])
                    text, state = text + self.tokenizer.words[chosen], constraint.step(state, chosen)
            found.append(type("Generation", (), {"text": text}))
        return found


def test_answers_come_back_in_the_order_of_the_calls():
    lm = Fake()
    prompt = prompts.Prompt("Input: a\n", "Output:")
    calls = [Call("x", prompt, 4, (name,) if name else ()) for name in ("dog", "", "cat", "", "dog")] * 9
    assert experiments.answer(lm, calls) == [" dog", " animal", " cat", " animal", " dog"] * 9
    # Side by side: far fewer calls of the model than questions.
    assert len(lm.batches) == 3 * 3
    assert sum(lm.batches) == 45


def test_rules_and_controls_are_scored_as_the_runner_does():
    keys = list(read_credits())
    asked = episodes(keys)[:5]
    found = experiments.classified(Fake(), asked, {key: f"words of {key}" for key in keys})
    for one in found:
        right = float(one.episode.query.label == "animal")
        assert dict(one.values) == dict.fromkeys(
            ("open", "constrained", "open_other", "constrained_other"), right
        )
        assert f"words of {one.episode.query.key}" in one.prompt.query
        assert f"words of {one.episode.query.key}" not in one.prompt.context


def test_pictures_are_written_with_the_models_own_tokens_of_the_words_it_has(monkeypatch):
    lm = Fake()
    lm.tokenizer.encode(" other words have the first numbers")
    # The last has a space, so it is two tokens of this tokenizer.
    constraint = lm.writable(["dog", "cat", "big dog"]).constraint(1)
    asked = [prompts.Prompt(f"Input: {colour}\n", "Output:") for colour in ("red", "blue")]
    found = experiments._next_words(lm, constraint, asked)
    assert found == {"greedy": ["dog"] * 2, "contrast": ["cat"] * 2}


def test_another_provider_is_refused(tmp_path):
    with pytest.raises(InputError, match="embedded model"):
        write_demo(tmp_path, model="openai/gpt-4o")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot make the folder"):
        write_demo(tmp_path / "file" / "page")


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.depth, self.links, self.classes = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            assert attributes["alt"]
        elif tag != "meta":
            self.depth.append(tag)
        self.classes += attributes.get("class", "").split()
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag


@pytest.fixture
def few(monkeypatch):
    """The real model on a small part of the work."""
    from spae.bundle import find
    from spae.errors import BundleError
    from spae.frozen_lm.model_file import smollm2_file

    try:
        find("default")
        smollm2_file()
    except (BundleError, InputError) as error:
        pytest.skip(f"the demonstration runs with what is shipped: {error}")
    monkeypatch.setattr(experiments, "COLOURS", {"red": (200, 30, 30), "blue": (40, 60, 200)})
    monkeypatch.setattr(experiments, "COLOUR_SHOTS", 2)
    monkeypatch.setattr(experiments, "LAYERS", 1)
    monkeypatch.setattr(experiments, "CAPTION_TOKENS", 2)
    monkeypatch.setattr(experiments, "episodes", lambda keys: episodes(keys)[:2])


def test_page_of_the_real_model(few, tmp_path, capsys):
    path = write_demo(tmp_path / "new" / "folder", model="spae-lm/default")
    text = path.read_text("utf-8")
    page = Page()
    page.feed(text)
    assert not page.depth
    assert not re.search(r"https?://|@import|url\(|\{\{", text)
    # Two in context, two asked, fourteen captioned, two pictures in five ways.
    assert len(page.links) == 2 + 2 + 14 + 2 * 5
    assert all(link.startswith("data:image/") for link in page.links)
    assert page.classes.count("painting") == 2
    for credit in read_credits().values():
        assert credit.author.replace('"', "&quot;") in text
    assert capsys.readouterr().out.splitlines()[-1] == f"the page: {path.resolve()}"
