"""Training with words of meaning by pursuit, under a tiny CLIP: a run, its averages, and what goes on from it."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS
from flax import nnx

import spae
from spae import bundle
from spae.errors import InputError
from spae.images import to_array
from spae.metrics import psnr
from spae.sources import open_source
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from tokenizer_train import loop, preparation
from tokenizer_train.cli import main
from tokenizer_train.config import Config, DataConfig, OptimizerConfig, RunConfig, VocabularyConfig
from tokenizer_train.config_file import load_config
from tokenizer_train.step import average_decay

GOLDEN = Path(__file__).parents[1] / "golden" / "clip_hugging_face"  # random weights


def changed(config: Config, **sections) -> Config:
    """A config with some fields of some sections replaced."""
    return dataclasses.replace(
        config,
        **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in sections.items()},
    )


@pytest.fixture(scope="module")
def config(vocabulary_folder, image_folder, tmp_path_factory) -> Config:
    tiny = load_config(CONFIGS / "default64.py", "tiny")
    # The linear paths alone, which are compiled in a moment.
    pursuit = {"network": "linear", "meaning": "pursuit", "pools": (1, 4), "trunk": "clip"}
    return dataclasses.replace(
        tiny,
        tokenizer=dataclasses.replace(tiny.tokenizer, **pursuit),
        vocabulary=VocabularyConfig(path=str(vocabulary_folder)),
        data=DataConfig(
            train=str(image_folder), validation=str(image_folder), batch_size=8, threads=1, buffer=16
        ),
        loss=dataclasses.replace(tiny.loss, semantic=0.0, semantic_layers=0, adversarial=0.0),
        optimizer=OptimizerConfig(steps=60, learning_rate=2e-3, warmup_steps=2, decay="constant"),
        run=RunConfig(
            output=str(tmp_path_factory.mktemp("pursuit") / "run"),
            start="principal",
            evaluate_every=100,
            checkpoint_every=100,
        ),
        guidance=f"clip:{GOLDEN}",
    )


@pytest.fixture(scope="module")
def trained(config) -> tuple[Tokenizer, Tokenizer, np.ndarray]:
    """The bundle of sixty steps, the same tokenizer with its last weights, and the words that training was given."""
    last, given = [], []
    build, look_up = preparation.tokenizer, preparation.features

    def both(*args, **more):
        last.append((args, more))
        return build(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "tokenizer", both)
        patch.setattr(preparation, "features", lambda *args: given.append(look_up(*args)) or given[-1])
        folder = loop.train(config)
    args, more = last[-1]
    return spae.load(folder), build(*args, **more | {"ema": False, "like": None}), np.asarray(given[0][0][0])


def test_the_bundle_chooses_the_words_that_training_was_given(trained, image_folder) -> None:
    bundle, _, given_nk = trained
    images = [record.image for record in open_source(image_folder)]
    found = [np.concatenate([ids.ravel() for ids in one.ids[:2]]) for one in bundle.encode(images)]
    np.testing.assert_array_equal(found, given_nk)
    assert len({tuple(row) for row in found}) > 5
    assert all(len(set(row)) == 5 for row in found)


def test_averaged_weights_are_no_worse_than_the_last_ones(trained, image_folder) -> None:
    squares = np.stack([to_array(record.image, 32) for record in open_source(image_folder)])
    averaged, last = (float(psnr(squares, one.decode(one.encode(squares))).mean()) for one in trained[:2])
    # Equal runs are equal to the bit: 20.23 dB against 20.22. An average that keeps random weights lacks decibels.
    assert averaged > last


def renamed(folder: Path, target: Path) -> str:
    """The same vectors under other words: each has the next one's."""
    whole = Vocabulary.load(folder)
    words = (*whole.words[1:], whole.words[0])
    Vocabulary(words, whole.token_ids, whole.embeddings, whole.views, whole.provenance).save(target)
    return str(target)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": {"pools": (2, 4)}},
        {"tokenizer": {"latents": 3}},
        {"vocabulary": {}},
    ],
    ids=["pools", "latents", "vocabulary"],
)
def test_a_run_does_not_go_on_with_other_words(
    trained, config, changes, vocabulary_folder, tmp_path, capsys
) -> None:
    arguments = [str(CONFIGS / "default64.py"), "--variant", "tiny"]
    if "vocabulary" in changes:
        changes = {"vocabulary": {"path": renamed(vocabulary_folder, tmp_path / "words")}}
    other = changed(config, **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenizer_train.cli.load_config", lambda *_: other)
        assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "give the config it was trained with" in error


def test_the_decoder_alone_is_trained_and_the_words_stay(trained, config, image_folder, tmp_path) -> None:
    begun = Path(config.run.output) / "bundle"
    finish = changed(
        config,
        optimizer={"steps": 3},
        run={
            "output": str(tmp_path / "run"),
            "initial": str(begun),
            "start": "random",
            "trains": "decoder",
        },
        data={"cache": str(Path(config.run.output) / "guidance")},
    )
    loaded, first = spae.load(loop.train(finish)), trained[0]
    before, after = (dict(nnx.to_flat_state(one.parameters)) for one in (first, loaded))
    assert before.keys() == after.keys()
    moved = {path[0] for path in before if not np.array_equal(before[path][...], after[path][...])}
    assert moved == {"decoder"}
    images = [record.image for record in open_source(image_folder)]
    assert loaded.encode(images) == first.encode(images)
    # The run goes on with nothing but what it began with, and to no fewer steps than it has.
    other = str(tmp_path / "other")
    loaded.save(other)
    with pytest.raises(InputError, match=r"did not begin with the bundle of run\.initial as it is now"):
        loop.train(changed(finish, run={"initial": other}))
    with pytest.raises(InputError, match=r"optimizer\.steps: wanted 3 at least, .* got 2"):
        loop.train(changed(finish, optimizer={"steps": 2, "warmup_steps": 1}))
    with pytest.raises(InputError, match=r"has meaning 'pursuit', pools \(1, 4\) .*give the bundle's"):
        loop.train(changed(finish, tokenizer={"pools": (2, 4)}))


def test_finetuning_keeps_the_words_of_meaning(trained, config, image_folder, tmp_path, capsys) -> None:
    begun = Path(config.run.output) / "bundle"
    arguments = ["finetune", str(image_folder), "--bundle", str(begun), "--guidance", f"clip:{GOLDEN}"]
    arguments += ["--optimizer.steps", "2", "--optimizer.warmup-steps", "1", "--data.batch-size", "8"]
    assert main([*arguments, "--run.output", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert f"beginning with the weights of {begun}" in out
    validated = [line.split()[0] for line in out.splitlines() if "raw-psnr/4" in line]
    assert validated == ["0", "2"]  # the bundle that it began with, and its end
    loaded, first = spae.load(tmp_path / "run" / "bundle"), trained[0]
    before, after = (dict(nnx.to_flat_state(one.parameters)) for one in (first, loaded))
    moved = {path[0] for path in before if not np.array_equal(before[path][...], after[path][...])}
    assert moved == {"encoder", "decoder", "projection", "perceptron"}
    assert loaded.vocabulary.words == first.vocabulary.words
    images = [record.image for record in open_source(image_folder)]
    for one, other in zip(loaded.encode(images), first.encode(images), strict=True):
        assert all(map(np.array_equal, one.ids[:2], other.ids[:2]))
    told = loaded.info["training"]
    assert told["images"] == 27  # of thirty
    assert (told["config"]["run"]["initial"], told["config"]["data"]["validation"]) == ("bundle", None)
    assert told["initial"] == {**first.info["training"], "sha256": bundle.sha256(begun)}


def test_the_average_is_short_at_first_and_not_where_a_bundle_was(config) -> None:
    decays = [float(average_decay(config, jnp.asarray(step))) for step in (0, 8, 90, 10**6)]
    np.testing.assert_allclose(decays, [0.1, 0.5, 0.91, 0.999], rtol=1e-6)
    begun = changed(config, run={"initial": "bundle"})
    assert average_decay(begun, jnp.asarray(0)) == 0.999
