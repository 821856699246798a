"""Connectors through the loop, in front of a tiny random language model: what is learned, resumed and refused."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from spae import connector, frozen_lm
from spae.connector import Reader
from spae.connector_config import ConnectorConfig
from spae.errors import InputError
from spae.frozen_lm.constraint import encode_behind
from spae.guidance.features import load_trunk
from spae.sources import open_source
from tokenizer_train.config_file import load_config
from tokenizer_train.connector.config import ConnectorExperiment, PairsConfig
from tokenizer_train.connector.dialogues import open_dialogues
from tokenizer_train.connector.pairs import Pairs, validation_batch
from tokenizer_train.connector.preparation import identity, prepare
from tokenizer_train.connector.step import nats
from tokenizer_train.identity import provenance
from tokenizer_train.loop import train
from tokenizer_train.processes.mesh import make_mesh
from tokenizer_train.summaries import Summaries

GOLDEN = Path(__file__).parents[1] / "golden"
TRUNK, READER = f"clip:{GOLDEN / 'clip_hugging_face'}", str(GOLDEN / "frozen_lm" / "llama")
CAPTIONS = {"red cat": (250, 10, 10), "dog": (10, 250, 10), "blue sea": (10, 10, 250), "sun": (240, 240, 20)}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory) -> Path:
    """Four images of a colour each, with captions whose first lines count, and one image without."""
    folder = tmp_path_factory.mktemp("captioned")
    for number, (caption, colour) in enumerate(CAPTIONS.items()):
        Image.fromarray(np.full((32, 32, 3), colour, np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{caption}\nde.utf8=etwas")
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "without.png")
    return folder


@pytest.fixture
def experiment(captioned, tmp_path) -> ConnectorExperiment:
    """connector_llava's linear tiny variant on those, with tiny networks."""
    tiny = load_config("connector_llava", "linear-tiny")
    return dataclasses.replace(
        tiny,
        connector=dataclasses.replace(tiny.connector, grid=1),
        trunk=TRUNK,
        language_model=READER,
        data=dataclasses.replace(tiny.data, train=str(captioned), validation=str(captioned), length=10),
        run=dataclasses.replace(
            tiny.run, output=str(tmp_path / "run"), log_every=1, evaluate_every=100, checkpoint_every=5
        ),
    )


@pytest.fixture
def logged(monkeypatch) -> dict[str, dict[int, dict[str, float]]]:
    """Group -> step -> figures, as they are logged."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    monkeypatch.setattr(
        Summaries,
        "scalars",
        lambda self, step, values, group: found.setdefault(group, {}).update({step: dict(values)}),
    )
    return found


def changed(experiment: ConnectorExperiment, **sections) -> ConnectorExperiment:
    return dataclasses.replace(
        experiment,
        **{
            name: dataclasses.replace(getattr(experiment, name), **fields)
            for name, fields in sections.items()
        },
    )


def test_four_captions_are_learned_and_shuffled_images_lose(experiment, captioned, logged, capsys) -> None:
    lm = frozen_lm.load(READER)
    before = lm.sha256()
    folder = train(changed(experiment, optimizer={"steps": 60, "warmup_steps": 3}))
    figures = logged["validation"][60]
    first = logged["train"][1]["loss"]
    assert figures["loss"] < first - 0.5
    assert figures["loss"] + 0.5 < min(figures["loss/shuffled"], figures["loss/blind"])
    assert figures["preferred"] == 1.0
    assert capsys.readouterr().out.count("1 image has no caption and is left out") == 2  # of both sources
    # What was trained is what is loaded, and what training called its loss is the model's own probability.
    trained = connector.load(folder, lm, TRUNK)
    total, count = 0.0, 0
    for caption, colour in CAPTIONS.items():
        prompt = trained.prompt(lm, "<image>", [np.full((32, 32, 3), colour, np.uint8)])
        said = encode_behind(f" {caption}\n", lm.tokenizer)
        total -= float(lm.score(prompt, [said])[0].sum())
        count += len(said)
    assert total / count == pytest.approx(figures["loss"], abs=1e-3)
    assert lm.sha256() == before == trained.reader.sha256
    assert trained.info["training"]["images"] == 4
    assert trained.info["training"]["config"]["connector"] == {"kind": "linear", "grid": 1}


def test_the_frozen_networks_get_no_gradient(experiment) -> None:
    prepared, state = prepare(experiment, make_mesh(experiment.mesh, jax.devices()[:1]))
    batch = {name: prepared.validation[name] for name in ("images", "ids", "soft", "at", "said")}

    def gradients(networks, **which):
        loss = jax.jit(lambda *given: nats(networks, *given, batch["images"], batch)[0].sum())
        return jax.grad(loss, **which)(state.params, networks.frozen)

    frozen, ours = gradients(prepared.networks, argnums=(1, 0), allow_int=True)
    assert all(not np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(frozen))
    assert any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(ours))
    # Computing blocks once more changes nothing.
    prepared, state = prepare(changed(experiment, run={"rematerialize": True}), prepared.mesh)
    again = gradients(prepared.networks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), again, ours)


def test_a_killed_run_goes_on_to_the_same_losses(experiment, logged, kill_after) -> None:
    config = changed(experiment, optimizer={"steps": 10})
    train(changed(config, run={"output": config.run.output + "-whole"}))
    whole = dict(logged["train"])
    assert sorted(whole) == list(range(1, 11))
    kill_after(config, 7)
    logged.clear()
    train(config)
    assert sorted(logged["train"]) == [6, 7, 8, 9, 10]
    assert logged["train"] == {step: whole[step] for step in logged["train"]}
    with pytest.raises(InputError, match="of a run with other images, words"):
        train(changed(config, run={"seed": 1}))


def test_a_record_is_the_text_behind_its_image(experiment, captioned) -> None:
    lm = frozen_lm.load(READER)
    config = dataclasses.replace(experiment.data, prompt="see <image>:", length=20)
    (source, dialogues), _, left_out = open_dialogues(config)
    assert dialogues == [(("see <image>:", f" {caption}\n"),) for caption in CAPTIONS]
    assert left_out == ["1 image has no caption and is left out"] * 2  # of both sources
    assert len(source) == 4
    record = Pairs(source, dialogues, lm, 2, 16, config).record(0)
    assert record["images"].shape == (16, 16, 3)
    given, said = lm.encode("see "), encode_behind(" red cat\n", lm.tokenizer)
    colon = encode_behind(":", lm.tokenizer)
    start = len(given) + 2 + len(colon)
    ids = [*given, 0, 0, *colon, *said]
    np.testing.assert_array_equal(record["ids"], ids + [0] * (22 - len(ids)))
    soft = [-1] * len(given) + [0, 1] + [-1] * (20 - len(given))
    np.testing.assert_array_equal(record["soft"], soft)
    places = list(range(start - 1, start - 1 + len(said)))
    np.testing.assert_array_equal(record["at"], places + [0] * (20 - len(said)))
    np.testing.assert_array_equal(record["said"], said + [-1] * (20 - len(said)))


def test_names_of_classes_are_said_too(image_folder) -> None:
    config = PairsConfig(train=str(image_folder), validation=None, text="label")
    (source, dialogues), (others, _), left_out = open_dialogues(config)
    assert set(dialogues) == {(("<image>", f" class{c}\n"),) for c in range(5)}
    assert (left_out, len(source) + len(others)) == ([], len(open_source(image_folder)))
    with pytest.raises(InputError, match="wanted images with a caption, none has one"):
        open_dialogues(dataclasses.replace(config, text="caption"))


def test_conversations_are_said_turn_by_turn(experiment, captioned, tmp_path) -> None:
    def turns(*texts: str) -> list[dict[str, str]]:
        return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]

    whole = {"id": "a", "image": "0.png", "conversations": turns("<image> What?", "A cat. ", "\nRed?", "yes")}
    again = {"id": "b", "image": "0.png", "conversations": turns("<image>", "red")}
    other = {"id": "c", "image": "1.png", "conversations": turns("<image>", "green")}
    entries = [
        *(whole, again, other),
        {"id": "text alone", "conversations": turns("Who?", "I")},
        {"id": "no answer", "image": "1.png", "conversations": turns("<image>")},
        {"id": "two images", "image": "1.png", "conversations": turns("<image> or <image>?", "this")},
        {"id": "broken", "image": "1.png"},
    ]
    file = captioned / "talk.json"
    file.write_text(json.dumps(entries))
    config = dataclasses.replace(
        experiment.data, text="conversation", train=str(file), validation=None, length=30
    )
    (source, dialogues), (others, held_out), left_out = open_dialogues(config)
    # By image: none is on both sides.
    both = dict(zip([*source.keys, *others.keys], [*dialogues, *held_out], strict=False))
    assert sorted([*source.keys, *others.keys]) == ["0.png", "0.png", "1.png"]
    assert set(source.keys).isdisjoint(others.keys)
    assert both["1.png"] == (("<image>", " green\n"),)
    assert (("<image> What?", " A cat.\n"), ("\nRed?", " yes\n")) in [*dialogues, *held_out]
    assert left_out == [
        "talk.json: 6 read, 1 left out (1 turns; first: entry 7: wanted turns of human and gpt in alternation, human "
        "first, each with a text)",
        "talk.json: 3 left out, not about one image that is shown first",
    ]
    # The prompt stands in the place of the image, which it puts behind a text; what comes later stays as it is.
    behind = dataclasses.replace(config, prompt="Image: <image>")
    (_, dialogues), (_, held_out), _ = open_dialogues(behind)
    shown = (("Image: <image> What?", " A cat.\n"), ("\nRed?", " yes\n"))
    assert {shown, (("Image: <image>", " green\n"),)} <= {*dialogues, *held_out}
    # What is said has labels, in every turn, and nothing else has.
    lm = frozen_lm.load(READER)
    config = dataclasses.replace(config, validation=str(file))
    (source, dialogues), _, _ = open_dialogues(config)
    record = Pairs(source, dialogues, lm, 2, 16, config).record(0)
    said = [id_ for _, text in dialogues[0] for id_ in encode_behind(text, lm.tokenizer)]
    assert [id_ for id_ in record["said"].tolist() if id_ != -1] == said
    assert [record["ids"][at + 1] for at in record["at"][: len(said)]] == said
    with pytest.raises(InputError, match=r"nothing at .*elsewhere/0\.png: wanted all 2 images"):
        open_dialogues(dataclasses.replace(config, images=str(tmp_path / "elsewhere")))
    with pytest.raises(InputError, match=r"None, but for data\.text conversation"):
        dataclasses.replace(config, text="caption", images="photographs")
    for changes in ({"train_split": "train"}, {"validation_split": "test"}):
        with pytest.raises(InputError, match=r"with data\.text conversation"):
            dataclasses.replace(config, **changes)


@pytest.mark.parametrize(("prompt", "told"), [("<image>", True), ("See <image>", False)])
def test_an_image_that_comes_first_is_told(experiment, prompt, told) -> None:
    """Where a language model begins texts with no token of its own."""
    assert frozen_lm.load(READER).encode("") == []
    config = changed(experiment, data={"prompt": prompt, "length": 20})
    prepared, _ = prepare(config, make_mesh(config.mesh))
    assert any("no token of its own" in note for note in prepared.notes) == told


def test_the_shuffled_image_is_another_image(experiment, tmp_path) -> None:
    """Of an image with two answers, the other answer's is no other."""
    for number in range(2):
        Image.fromarray(np.full((8, 8, 3), 200 * number, np.uint8)).save(tmp_path / f"{number}.png")
    asked = [("0.png", "red"), ("0.png", "round"), ("1.png", "blue")]
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt"}]
    entries = [
        {"id": str(i), "image": image, "conversations": [turns[0], {**turns[1], "value": said}]}
        for i, (image, said) in enumerate(asked)
    ]
    (tmp_path / "talk.json").write_text(json.dumps(entries))
    config = dataclasses.replace(
        experiment.data, text="conversation", train=str(tmp_path / "talk.json"), validation=None
    )
    config = dataclasses.replace(config, validation=config.train)
    (source, dialogues), _, _ = open_dialogues(config)
    batch = validation_batch(Pairs(source, dialogues, frozen_lm.load(READER), 2, 8, config))
    assert batch["images"][:, 0, 0, 0].tolist() == [0, 0, 200]
    assert batch["other_images"][:, 0, 0, 0].tolist() == [200, 200, 0]
    # Which image it is said of is part of a run's identity.
    swapped = [{**entry, "image": {"0.png": "1.png", "1.png": "0.png"}[entry["image"]]} for entry in entries]
    (tmp_path / "swapped.json").write_text(json.dumps(swapped))
    lm, reader, trunk = frozen_lm.load(READER), Reader.of(frozen_lm.load(READER)), load_trunk(TRUNK)
    identities = set()
    for name in ("talk", "swapped"):
        (source, dialogues), _, _ = open_dialogues(
            dataclasses.replace(config, train=str(tmp_path / f"{name}.json"))
        )
        pairs = Pairs(source, sorted(dialogues), lm, 2, 8, config)
        identities.add(identity(experiment, reader, trunk, pairs, source))
    assert len(identities) == 2


def test_what_does_not_fit_is_refused(experiment, captioned, tmp_path) -> None:
    with pytest.raises(InputError, match=r"data\.length: 2 of 4 texts have more than 5 tokens, the longest"):
        train(changed(experiment, data={"length": 5}))
    with pytest.raises(InputError, match="at most 255 tokens beside the 1 of an image"):
        train(changed(experiment, data={"length": 256}))
    with pytest.raises(InputError, match="with <image> once"):
        PairsConfig(train="a", validation=None, prompt="no image")
    with pytest.raises(InputError, match="wanted the trunk"):
        dataclasses.replace(experiment, trunk="resnet")
    with pytest.raises(InputError, match="at least warmup_steps"):
        changed(experiment, optimizer={"steps": 1})
    for number in range(2):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("the same")
    with pytest.raises(
        InputError, match=r"different images with different texts, 0\.png \('the same'\) has no such other"
    ):
        train(changed(experiment, data={"validation": str(tmp_path)}))


def test_a_bundle_tells_no_places(experiment, captioned, tmp_path) -> None:
    text = json.dumps(provenance(experiment, 4, 1.0))
    assert str(captioned.parent) not in text
    assert str(tmp_path) not in text
    assert str(GOLDEN) not in text
    assert ConnectorConfig(kind="linear", grid=1) == experiment.connector
