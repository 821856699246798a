"""Training from end to end, small: bundle, resumption, devices, divergence, full disk."""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import spae
from spae.errors import InputError
from spae.images import to_array, to_float
from spae.sources import open_source
from tokenizer_train import loop
from tokenizer_train.checkpoint import Checkpoints
from tokenizer_train.cli import main
from tokenizer_train.config import Config
from tokenizer_train.identity import provenance
from tokenizer_train.loop import Diverged, train

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "default64.py"


def changed(config: Config, **sections) -> Config:
    """A config with some fields of some sections replaced."""
    return dataclasses.replace(
        config,
        **{name: dataclasses.replace(getattr(config, name), **fields) for name, fields in sections.items()},
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def finished(linear_config: Config, kept: Path, unvalidated) -> Config:
    """A run of one step that is done: trained once for all tests, each of which has its own copy of the folder."""
    config = changed(linear_config, optimizer={"steps": 1})
    if not (kept / "run").exists():
        train(config)
        shutil.copytree(config.run.output, kept / "run")
    else:
        shutil.copytree(kept / "run", config.run.output)
    return config


def test_twenty_steps_through_the_command_line(
    vocabulary_folder, image_folder, tmp_path, hash_guidance, capsys
) -> None:
    fields = {
        "vocabulary.path": vocabulary_folder,
        "data.train": image_folder,
        "data.validation": image_folder,
        "optimizer.steps": 20,
        "run.evaluate-every": 20,
        "run.output": tmp_path / "run",
    }
    arguments = [str(CONFIG), "--variant", "tiny"]
    for name, value in fields.items():
        arguments += [f"--{name}", str(value)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for step in (5, 10, 15, 20):
        assert f"{step:>8}  train     adversarial" in shown
    assert "      20  validation  psnr/1" in shown
    assert "  raw-psnr/4 " in shown
    assert "compiling the step .." in shown
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))

    tokenizer = spae.load(tmp_path / "run" / "bundle")
    assert tokenizer.info["training"]["config"]["optimizer"]["steps"] == 20
    assert tokenizer.info["training"]["images"] == 30
    pyramid = tokenizer.encode(open_source(image_folder)[0].image)
    assert tokenizer.decode(pyramid).shape == (32, 32, 3)


def test_a_killed_run_goes_on_to_the_same_losses(tiny_config, losses, kill_after, unvalidated) -> None:
    """With networks, and a rate that changes with every step: the rest of the run begins where it was in its course."""
    config = changed(tiny_config, optimizer={"warmup_steps": 2, "decay": "cosine"})
    train(changed(config, run={"output": config.run.output + "-whole"}))
    whole = dict(losses)
    assert sorted(whole) == list(range(1, 11))
    losses.clear()
    kill_after(config, 7)
    losses.clear()
    train(config)
    assert sorted(losses) == [6, 7, 8, 9, 10]
    assert losses == {step: whole[step] for step in losses}


def test_what_is_done_is_done(finished, monkeypatch, capsys) -> None:
    """The same command only writes the bundle again."""
    bundle = Path(finished.run.output) / "bundle"
    shutil.rmtree(bundle)
    monkeypatch.setattr("tokenizer_train.cli.load_config", lambda file, variant: finished)
    capsys.readouterr()
    assert main([str(CONFIG)]) == 0
    assert "train  " not in capsys.readouterr().out
    assert (bundle / "bundle.json").is_file()


def test_a_loss_that_is_not_finite_stops_the_run(linear_config, losses, monkeypatch, capsys) -> None:
    config = changed(linear_config, optimizer={"learning_rate": 1e30}, run={"checkpoint_every": 1})
    with pytest.raises(
        Diverged, match=r"not finite at step \d+; the last good checkpoint is step (\d+)"
    ) as stopped:
        train(config)
    folder = Path(config.run.output) / "checkpoints"
    assert str(folder) in str(stopped.value)
    with Checkpoints(folder, 2) as checkpoints:
        good = checkpoints.latest
    assert f"checkpoint is step {good} " in str(stopped.value)
    assert good + 1 not in losses
    assert not (Path(config.run.output) / "bundle").exists()
    monkeypatch.setattr("tokenizer_train.cli.load_config", lambda file, variant: config)
    assert main([str(CONFIG)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("spae-train: ")
    assert error.count("\n") == 1


def test_a_full_disk_leaves_the_old_bundle(finished, image_folder, monkeypatch) -> None:
    folder = Path(finished.run.output) / "bundle"
    image = open_source(image_folder)[0].image
    before = spae.load(folder).encode(image)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}

    written = []

    def full(path, data):
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr("spae.bundle._write_through", full)
    with pytest.raises(OSError, match="No space left"):
        train(finished)
    assert len(written) == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert spae.load(folder).encode(image) == before
    assert [entry.name for entry in folder.parent.iterdir() if entry.name.startswith(".")] == []


def test_what_a_checkpoint_began_with_is_what_the_config_begins_with(linear_config) -> None:
    began = {"sha256": "ab" * 32}
    from_nothing = changed(linear_config, run={"initial": None})
    gone = changed(linear_config, run={"initial": "a-bundle-that-is-gone"})
    default = changed(linear_config, run={"initial": "default"})
    loop.check_initial(from_nothing, None, "run")
    loop.check_initial(gone, began, "run")  # its weights are in the checkpoint
    loop.check_initial(default, {}, "run")  # from before the sum was kept
    for config, before in ((from_nothing, began), (gone, None), (default, began)):
        with pytest.raises(InputError, match=r"did not begin with the bundle of run\.initial as it is now"):
            loop.check_initial(config, before, "run")


def test_a_config_that_does_not_fit_is_refused(finished, linear_config, hash_guidance, monkeypatch) -> None:
    monkeypatch.setattr(hash_guidance, "fingerprint", "hash 2")
    with pytest.raises(InputError, match="other images, words, losses, seed, batch size, start or frozen"):
        train(finished)
    with pytest.raises(InputError, match="is of another model"):
        train(changed(linear_config, tokenizer={"latents": 3}))
    if len(jax.local_devices()) > 1:
        with pytest.raises(InputError, match="multiple of"):
            train(changed(linear_config, data={"batch_size": 7}))


def test_a_bundle_says_nothing_of_where_things_lay(linear_config) -> None:
    config = changed(
        linear_config,
        data={"train": "/home/me/data/train", "cache": "/home/me/cache", "mixture": (("/home/me/a/b", 1.0),)},
        loss={"perceptual_network": "resnet50-logits", "perceptual_weights": "/home/me/resnet50.safetensors"},
        run={"initial": "/home/me/bundle"},
        mesh={"coordinator": "10.0.0.1:80", "processes": 1, "process": 0},
    )
    told = provenance(dataclasses.replace(config, guidance="clip:/home/me/clip"), 1, 1.0)["config"]
    assert "/home" not in json.dumps(told)
    assert "10.0.0.1" not in json.dumps(told)
    assert told["loss"]["perceptual_weights"] == "resnet50.safetensors"
    assert told["guidance"] == "clip:clip"
    assert provenance(linear_config, 1, 1.0)["config"]["guidance"] == "conse"


def test_what_a_device_says_is_one_line(linear_config, monkeypatch, capsys) -> None:
    def full(config):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand much more")

    monkeypatch.setattr("tokenizer_train.cli.load_config", lambda file, variant: linear_config)
    monkeypatch.setattr(loop, "train", full)
    assert main([str(CONFIG)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("spae-train: RESOURCE_EXHAUSTED: Out of memory; see docs/operations.md")
    assert error.count("\n") == 1


def test_evaluation_of_a_bundle(finished, image_folder, tmp_path, hash_guidance, monkeypatch, capsys) -> None:
    folder = Path(finished.run.output) / "bundle"
    monkeypatch.setattr("tokenizer_train.evaluation.evaluate.Conse", lambda: hash_guidance)
    capsys.readouterr()
    arguments = ["eval", str(folder), str(image_folder), "--batch-size", "8", "--codec-images", "3"]
    arguments += ["--episodes", "200", "--skip", "stlpips", "frechet"]
    assert main([*arguments, "--json", "--output", str(tmp_path / "figures.json")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "figures.json").read_text())
    assert result["images"] == 30
    assert [prefix["words"] for prefix in result["prefixes"]] == [1, 5, 21, 37]
    assert result["prefixes"][1]["bits"] == pytest.approx(5 * np.log2(60), abs=0.05)

    # Slow and obvious, from the bundle: PSNR of the second prefix, percentile of the first word.
    tokenizer = spae.load(folder)
    images = [to_array(record.image, 32) for record in open_source(image_folder)]
    pyramids = [tokenizer.encode(image) for image in images]
    errors = [
        ((tokenizer.decode(pyramid, layers=2).astype(float) - image) ** 2).mean()
        for image, pyramid in zip(images, pyramids, strict=True)
    ]
    assert result["prefixes"][1]["psnr"] == pytest.approx(np.mean(10 * np.log10(255**2 / np.array(errors))))
    words_vf = hash_guidance.texts(list(tokenizer.vocabulary.words))
    below = []
    for image, pyramid in zip(images, pyramids, strict=True):
        score_v = words_vf @ hash_guidance.images(to_float(image)[None])[0]
        below.append((score_v < score_v[pyramid.ids[0][0, 0]]).sum() / 59)
    assert result["layers"][0]["percentile"] == pytest.approx(np.mean(below), abs=1e-6)

    one_shot = result["few_shot"][1]
    assert (one_shot["ways"], one_shot["shots"], one_shot["chance"]) == (5, 1, 0.2)
    # The classes are colours, and the guidance's vector is made of the colour.
    assert one_shot["accuracy"]["hash vector of the image"] > 0.8
    assert abs(one_shot["accuracy"]["5 words of another image"] - 0.2) < 0.1

    assert main([*arguments, "guidance", "codecs", "--limit", "11"]) == 0
    shown = capsys.readouterr().out
    assert "on 11 images" in shown
    assert "| layers | words | bits | PSNR dB | SSIM |" in shown
    assert "represented by" not in shown
