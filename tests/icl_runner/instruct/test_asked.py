"""A task's questions as conversations: read back, and trained on as they are."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from icl_runner.cells import shuffled
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import Images
from icl_runner.instruct.asked import write_asked
from icl_runner.tasks.caption import Caption
from icl_runner.tasks.interpret import Interpret
from icl_runner.tasks.vqa import Vqa
from spae.conversations import read_conversations
from spae.errors import InputError
from tokenizer_train.connector.config import PairsConfig
from tokenizer_train.connector.dialogues import open_dialogues

MODEL = "spae-lm/default"


@pytest.mark.skipif(find_spec("easy_vqa") is None, reason="the package easy-vqa is not installed")
def test_questions_and_captions_in_one_file(tmp_path) -> None:
    captioned = tmp_path / "captioned"
    captioned.mkdir()
    Image.new("RGB", (9, 9), (200, 0, 0)).save(captioned / "a.png")
    (captioned / "a.txt").write_text("a  red square")
    output = tmp_path / "made" / "asked.json"
    asked = Vqa(model=MODEL, split="train", count=30)
    assert write_asked(asked, Caption(model=MODEL, data=str(captioned)), output=output) == 31
    read = read_conversations(output)
    assert (len(read.entries), read.faults) == (31, ())
    *questions, caption = read.entries
    assert [turn.text for turn in caption.turns] == ["Image: <image>\nCaption:", "a red square"]
    np.testing.assert_array_equal(np.asarray(Image.open(output.parent / caption.image))[0, 0], (200, 0, 0))
    examples = {example.key: example for example in asked.examples().examples}
    for entry in questions:
        example = examples[entry.id.removeprefix("vqa/0/")]
        assert entry.turns[0].text == f"Image: <image>\nQuestion: {example.question}\nAnswer:"
        assert entry.turns[1].text == example.answers[0]
    # As training opens them.
    config = PairsConfig(train=str(output), validation=None, text="conversation")
    (source, dialogues), (_, held_out), left_out = open_dialogues(config)
    assert (len(dialogues) + len(held_out), left_out) == (31, [])
    assert len(source) == len(dialogues)
    assert len(json.loads(output.read_text())) == 31


def test_what_is_written_is_not_what_a_run_asks(tmp_path) -> None:
    data = tmp_path / "captioned"
    data.mkdir()
    for number in range(9):
        Image.new("RGB", (9, 9), (25 * number, 0, 0)).save(data / f"{number}.png")
        (data / f"{number}.txt").write_text(f"picture {number}")
    task = Caption(model=MODEL, data=str(data), count=3, shots=(2,))
    write_asked(task, output=tmp_path / "made" / "asked.json")
    written = {entry.turns[1].text for entry in read_conversations(tmp_path / "made" / "asked.json").entries}
    images = Images(task.examples(), "default")
    images.words = lambda keys, layers: dict.fromkeys(keys, "words")
    images.tokens = lambda layers: 5
    [cell] = task.few_shot(images, task.shots)
    shown = {line for call in cell.calls() for line in call.prompt.text.splitlines()}
    asked = {item.target for item in cell.items}
    assert len(written) == len(asked) == 3
    assert not written & asked
    assert not {f"Caption: {text}" for text in written} & shown


def test_an_image_that_a_run_asks_about_is_not_written_with_another_question(tmp_path, monkeypatch) -> None:
    examples = [
        Example(f"{image}-{number}", question=f"{number}?", answers=("yes",), image_key=str(image))
        for image in range(20)
        for number in range(5)
    ]
    found = ExampleSet("drawn", examples, {}, lambda key: np.zeros((4, 4, 3), np.uint8), lambda: "drawn")
    monkeypatch.setattr(Vqa, "examples", lambda self: found)
    task = Vqa(model=MODEL, count=20)
    write_asked(task, output=tmp_path / "asked.json")
    written = {entry.id for entry in read_conversations(tmp_path / "asked.json").entries}
    assert len(written) == 20
    images = {one.removeprefix("vqa/0/").partition("-")[0] for one in written}
    assert len(images) == 4  # each with all its questions
    first = shuffled(examples, task.seed, lambda one: one.key)[:8]
    assert images.isdisjoint(one.image_key for one in first)


def test_nothing_to_ask_is_refused(tmp_path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="wanted images with a class or a caption"):
        write_asked(Interpret(model=MODEL, data=str(tmp_path)), output=tmp_path / "asked.json")
