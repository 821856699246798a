"""`spae-connector`: images of a prompt become soft tokens, in every task, on the episodes of the word path."""

import asyncio
import base64
import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from inspect_ai.log import read_eval_log
from inspect_ai.model import (
    ChatMessageUser,
    ContentAudio,
    ContentImage,
    ContentText,
    GenerateConfig,
    get_model,
)

from icl_runner import shown
from icl_runner.cli import main
from icl_runner.constraints import Choices
from icl_runner.data import sets
from icl_runner.data.images import Images
from spae import connector, frozen_lm
from spae.connector import Connector, Reader, build
from spae.connector_config import ConnectorConfig
from spae.errors import InputError
from spae.frozen_lm.constraint import encode_behind
from spae.guidance.features import load_trunk
from spae.images import data_url, open_image, to_png

GOLDEN = Path(__file__).parents[2] / "golden"
TRUNK, READER = f"clip:{GOLDEN / 'clip_hugging_face'}", str(GOLDEN / "frozen_lm" / "llama")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.usefixtures("streams_collected"),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A connector of random weights."""
    trunk, config = load_trunk(TRUNK), ConnectorConfig(kind="frozen")
    made = build(config, trunk, 32, nnx.Rngs(0))
    folder = tmp_path_factory.mktemp("connector") / "bundle"
    Connector(config, made, trunk, Reader.of(frozen_lm.load(READER))).save(folder)
    return folder


@pytest.fixture(scope="module")
def model(bundle):
    made = get_model(f"spae-connector/{bundle}", memoize=False, language_model=READER, trunk=TRUNK)
    yield made
    made.api.close()


def ask(model, content, **config):
    return asyncio.run(model.generate([ChatMessageUser(content=content)], config=GenerateConfig(**config)))


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)


def part(seed: int) -> ContentImage:
    return ContentImage(image=data_url(to_png(picture(seed)), "png"))


def test_images_stand_where_they_are_shown(bundle, model) -> None:
    lm = frozen_lm.load(READER)
    ours = connector.load(bundle, lm, TRUNK)
    prompt = ours.prompt(lm, "a <image> dog <image>:", [picture(0), picture(1)])
    content = [ContentText(text="a "), part(0), ContentText(text=" dog "), part(1), ContentText(text=":")]
    texts = ("fox", "cat")
    output = ask(model, content, logprobs=True, extra_body=Choices(texts).extra_body())
    scores = lm.score(prompt, [encode_behind(f" {text}", lm.tokenizer) for text in texts])
    found = texts.index(output.completion.strip())
    content_log = output.choices[0].logprobs.content
    np.testing.assert_allclose([one.logprob for one in content_log], scores[found], atol=1e-4)
    assert output.usage.input_tokens == len(prompt)
    plain = ask(model, "a dog", max_tokens=4)
    assert plain.completion == lm.generate([lm.encode("a dog")], 4)[0].text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a <image>", "wanted images as parts of the message"),
        ([ContentImage(image="https://host/a.png")], r"wanted images as data:image/png;base64,"),
        (
            [ContentImage(image=f"data:image/png;base64,{base64.b64encode(b'no').decode()}")],
            "an image cannot be read",
        ),
        (
            [ContentText(text="a"), ContentAudio(audio="a.wav", format="wav")],
            "text and images only; got audio",
        ),
        ("", "empty message"),
    ],
)
def test_what_it_cannot_read_is_said(model, content, message) -> None:
    # Some of these inspect-ai refuses itself, before they come here.
    with pytest.raises(InputError, match=message):
        model.api._read([ChatMessageUser(content=content)], [])


def test_marks_become_images() -> None:
    text = f"one {shown.mark('a b/c>d.png')}\ntwo {shown.mark('e.png')}"
    assert shown.content(text, None) == text
    assert shown.content("plain", str.upper) == "plain"
    parts = shown.content(text, lambda key: f"data:{key}")
    assert [getattr(one, "text", None) or one.image for one in parts] == [
        "one ",
        "data:a b/c>d.png",
        "\ntwo ",
        "data:e.png",
    ]


def test_a_task_measures_it_on_the_episodes_of_the_words(bundle, class_folders, tmp_path, capsys) -> None:
    options = ["-M", f"language_model={READER}", "-M", f"trunk={TRUNK}", "--examples", "2", "--blind"]
    given = ["run", "classify", "--data", str(class_folders), "--ways", "2", "--log-dir"]
    assert main([*given, str(tmp_path / "seen"), "--model", f"spae-connector/{bundle}", *options]) == 0
    words = ["--words", "class-name", "--model", f"spae-lm/{READER}", "--examples", "2"]
    assert main([*given, str(tmp_path / "read"), *words]) == 0
    logs = {}
    for name in ("seen", "read"):
        (file,) = (tmp_path / name).glob("*.eval")
        logs[name] = read_eval_log(str(file))
        assert logs[name].status == "success"
    keys = {name: [one.metadata["shown"]["query_key"] for one in log.samples] for name, log in logs.items()}
    assert keys["seen"] == keys["read"]
    assert logs["seen"].eval.metadata["spae"]["cell"]["tokens_per_image"] == 2
    assert logs["seen"].samples[0].metadata["shown"]["words"].startswith("<image:")
    assert "open_blind" in logs["seen"].samples[0].metadata["answers"]
    shown_images = Images(sets.labelled(class_folders), "default", str(bundle)).picture
    assert not np.asarray(open_image(base64.b64decode(shown_images("").partition(",")[2]))).any()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "seen")]) == 0
    printed = capsys.readouterr().out
    assert "2 soft tokens" in printed
    assert "control: no image" in printed
    record = json.loads(next((tmp_path / "seen").glob("*.json")).read_text())
    assert "spae-connector" in json.dumps(record)


def test_what_is_made_of_words_is_refused(bundle, capsys, tmp_path) -> None:
    for task, more, message in (
        ("generate", ["--data", "mnist"], "this task's pictures are words"),
        ("classify", ["--data", "photographs", "--layers", "1", "2"], "is shown images, not words"),
    ):
        given = ["run", task, *more, "--model", f"spae-connector/{bundle}", "--log-dir", str(tmp_path / task)]
        assert main(given) == 1
        assert message in capsys.readouterr().err
