"""The data factory through its door: asked once, checked, without doubles, counted; a file that LLaVA reads."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from icl_runner import constraints
from icl_runner.cli import main
from icl_runner.data.sprites import SPRITES, Sprite, SpriteSet
from icl_runner.instruct.described import open_images
from spae.conversations import read_conversations
from spae.errors import InputError
from spae.images import to_png

KINDS = ("conversation", "detail", "reasoning")


def _disc(name: str) -> np.ndarray:
    y, x = np.mgrid[-20:20, -20:20] + 0.5
    return np.dstack([*[np.full((40, 40), 90)] * 3, (np.hypot(x, y) < 19) * 255]).astype(np.uint8)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    names = ("disc", "dish", "coin", "plate", "moon")
    monkeypatch.setitem(
        SPRITES,
        "openmoji",
        lambda: SpriteSet("toys", [Sprite(n, n, "toy", f"a {n}") for n in names], _disc, str),
    )


def instruct(output, *more: str) -> list[str]:
    return ["instruct", "openmoji", "--model", "fake/m", "--examples", "3", "-o", str(output), *more]


def _asked_about(prompt: str) -> str:
    return prompt.rpartition("Input:\n")[2].partition("\nOutput:")[0]


def _write(prompt: str) -> str:
    about = _asked_about(prompt)
    first = about.splitlines()[0]
    if "one full paragraph" in prompt:
        return f"There is {first}.\n###\nInput: more"
    return f"Q: What is there?\nA: There is {first}{' and it is so' if '[' in about else ''}.\n###"


def test_made_once_and_read_by_llava(tmp_path, capsys, fake_model):
    fake_model.answer = _write
    output = tmp_path / "made.json"
    assert main(instruct(output)) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1:] == [f"{kind}: 3 of 3" for kind in KINDS]
    read = read_conversations(output)
    assert (len(read.entries), read.faults) == (9, ())
    for one in read.entries:
        picture = np.asarray(Image.open(tmp_path / "made" / one.image))
        assert picture.shape == (256, 256, 3)
        assert one.turns[0].text.startswith("<image>\n")
        assert "###" not in one.turns[1].text
    assert len(fake_model.prompts) == 9
    # The sentences go with every kind, the places with two of them: rounded shares of width and height.
    told = [_asked_about(prompt) for prompt in fake_model.prompts]
    assert [text.count("]") > 0 for text in told] == [False, True, True] * 3
    # Run again, nothing is asked; with one image more, only that one.
    assert main(instruct(output)) == 0
    assert (len(fake_model.prompts), capsys.readouterr().out) == (9, printed)
    assert main([*instruct(output), "--examples", "4"]) == 0
    assert len(fake_model.prompts) == 12
    # Another endpoint's answers are not mixed with these.
    assert main(instruct(output, "--model-base-url", "http://localhost:1/v1")) == 1
    assert "base_url was null" in capsys.readouterr().err


def test_what_is_rejected_and_what_fails_is_counted(tmp_path, capsys, fake_model):
    def write(prompt: str) -> str:
        if "one full paragraph" in prompt:
            raise RuntimeError("no such luck")
        return "Q: What?\nA: A cat." if "three to five" in prompt else "Q: Why?\nA: The caption says so."

    fake_model.answer = write
    output = tmp_path / "made.json"
    assert main([*instruct(output), "--max-retries", "0", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["kinds"] == {
        "conversation": {"asked": 3, "left_out": {"duplicate": 2}},
        "detail": {"asked": 3, "left_out": {"call": 3}},
        "reasoning": {"asked": 3, "left_out": {"captions": 3}},
    }
    assert err == "spae-icl: 3 calls failed (no such luck): the same command tries again what failed\n"
    assert len(read_conversations(output).entries) == 1
    fake_model.answer = lambda prompt: f"There is {_asked_about(prompt)[:30]}."
    fake_model.prompts.clear()
    assert main(instruct(output)) == 0
    assert capsys.readouterr().out.splitlines()[2] == "detail: 3 of 3"
    assert len(fake_model.prompts) == 3


def test_a_model_that_chats_is_shown_the_examples_as_turns(tmp_path, fake_model, monkeypatch):
    monkeypatch.setattr(constraints, "_PROVIDERS", ())
    fake_model.answer = lambda prompt: f"There is {prompt}."
    assert main([*instruct(tmp_path / "made.json"), "--kinds", "detail", "--examples", "1"]) == 0
    [prompt] = fake_model.prompts
    assert "###" not in prompt
    [system] = fake_model.systems
    assert system.startswith("You see an image")
    assert len(fake_model.contents) == 1 + 2 * 3 + 1


def test_images_with_captions_alone_and_coco(tmp_path):
    photographs = open_images("photographs", None, 3, 0, tmp_path)
    assert len({photographs.read(id).image for id in photographs.ids}) == 3
    assert all(photographs.read(id).things == () for id in photographs.ids)
    with pytest.raises(InputError, match="wanted 99 images with captions"):
        open_images("photographs", None, 99, 0, tmp_path)
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "val").mkdir()
    Image.new("RGB", (200, 100)).save(coco / "val" / "a.png")
    images = [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}]
    said = [{"image_id": 7, "caption": text} for text in ("A cat.", "A black cat.")]
    (coco / "annotations/captions_val.json").write_text(json.dumps({"images": images, "annotations": said}))
    [id] = open_images(str(coco), None, 1, 0, tmp_path).ids
    assert open_images(str(coco), None, 1, 0, tmp_path).read(id).things == ()
    boxes = {"categories": [{"id": 1, "name": "cat"}], "images": images}
    boxes["annotations"] = [{"image_id": 7, "category_id": 1, "bbox": [50, 20, 100, 30]}]
    (coco / "annotations/instances_val.json").write_text(json.dumps(boxes))
    found = open_images(str(coco), None, 1, 0, tmp_path).read(id)
    assert found.things == (("cat", (0.25, 0.2, 0.75, 0.5)),)
    assert found.captions == ("A cat.", "A black cat.")
    boxes["annotations"][0]["category_id"] = 2
    (coco / "annotations/instances_val.json").write_text(json.dumps(boxes))
    with pytest.raises(InputError, match="something lacks 2"):
        open_images(str(coco), None, 1, 0, tmp_path)


def test_images_that_are_no_files_are_refused_before_any_call(tmp_path, capsys, fake_model):
    data = {"a.txt": b"A cat.", "a.png": to_png(np.zeros((8, 8, 3), np.uint8))}
    with tarfile.open(tmp_path / "part-0.tar", "w") as archive:
        for name, content in data.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    given = ["--model", "fake/m", "--examples", "1", "-o", str(tmp_path / "made.json")]
    assert main(["instruct", str(tmp_path), *given]) == 1
    assert "wanted images that are files" in capsys.readouterr().err
    assert fake_model.prompts == []
    # Unpacked, they are.
    (tmp_path / "folder").mkdir()
    for name, content in data.items():
        (tmp_path / "folder" / name).write_bytes(content)
    images = open_images(str(tmp_path / "folder"), None, 1, 0, tmp_path)
    assert images.read(images.ids[0]).image == "a.png"


def test_wrong_input_is_one_line(tmp_path, capsys, fake_model):
    assert main(instruct(tmp_path / "made.txt")) == 1
    assert main([*instruct(tmp_path / "made.json"), "-M", "api_key=1"]) == 1
    assert main([*instruct(tmp_path / "made.json"), "--split", "val"]) == 1
    assert main([*instruct(tmp_path / "made.json"), "--kinds", "detail", "detail"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in err] == ["spae-icl"] * 4
    assert fake_model.prompts == []
