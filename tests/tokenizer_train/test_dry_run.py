"""What a run would need, by shape alone: against the paper's numbers, against a real state, for every config."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from drawn import drawn

from spae.autoencoder import Autoencoder
from spae.errors import InputError
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from spae.weights.hub import Located
from tokenizer_train import dry_run
from tokenizer_train.cli import main
from tokenizer_train.config import DataConfig, VocabularyConfig
from tokenizer_train.config_file import load_config
from tokenizer_train.connector import shapes
from tokenizer_train.connector.config import ConnectorExperiment
from tokenizer_train.connector.shapes import shaped_step
from tokenizer_train.dry_run import ShapedVocabulary, estimate, table
from tokenizer_train.flops import DEVICES, PEAKS, peak
from tokenizer_train.missing import missing
from tokenizer_train.processes.mesh import make_mesh
from tokenizer_train.state import build, create

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def scalars(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.py")), ids=lambda f: f.stem)
def test_every_full_config_has_its_shapes_without_any_file(file, tmp_path, monkeypatch) -> None:
    """Up to the compiler, which takes minutes for them all; no data, no vocabulary, no weights."""
    monkeypatch.chdir(tmp_path)
    config = load_config(file)
    if isinstance(config, ConnectorExperiment):
        parameters, *_ = shaped_step(config, make_mesh(config.mesh, jax.devices()[:1]))
        # Vicuna-7B, and CLIP ViT-L/14's image side at 336 px.
        assert parameters["frozen"] == {"trunk": 304_293_888, "language_model": 6_738_415_616}
        assert parameters["connector"] > 4e6
        return
    vocabulary = dry_run._vocabulary(config.vocabulary)
    width = dry_run._feature_width(config)
    features = np.broadcast_to(np.float32(0), (len(vocabulary), width))
    try:
        frozen = dry_run._perceptual(config), dry_run._language_model(config, vocabulary)
    except InputError as error:
        if "stlpips" not in str(error):
            raise
        pytest.skip(f"the shapes of this network are in a package that is not here: {error}")
    _, fresh = build(config, vocabulary, features, np.zeros(len(vocabulary), np.float32), *frozen)
    # All are full but the parts of the two-core default, which has 944,912.
    least = 9e5 if file.stem == "parts64" else 1e6
    assert scalars(jax.eval_shape(fresh, jax.random.key(0)).params) > least


def test_the_papers_network_has_its_parameters(tmp_path, monkeypatch) -> None:
    """23.7M + 35.7M = the paper's 59M, and MAGVIT's discriminator of 23.9M."""
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIGS / "imagenet128.py")
    vocabulary = ShapedVocabulary(65_536, (1536, 1536))
    frozen = dry_run._perceptual(config), None
    _, fresh = build(config, vocabulary, np.zeros((65_536, 0)), np.zeros(65_536), *frozen)
    state = jax.eval_shape(fresh, jax.random.key(0))
    sizes = {name: scalars(part) for name, part in state.params.items()}
    assert [round(sizes[name] / 1e6, 1) for name in ("encoder", "decoder")] == [23.7, 35.7]
    assert round(scalars(state.discriminator) / 1e6, 1) == 23.9
    assert round(scalars(frozen[0]) / 1e6, 1) == 25.5


def test_the_estimate_of_a_tiny_run(tiny_config) -> None:
    """Of one with pursuit: neither trunk nor words of meaning are looked at."""
    semantic = {"semantic": 0.0, "semantic_layers": 0, "hub_correction": False}
    pursuit = {"meaning": "pursuit", "pools": (1, 4), "trunk": "conse"}
    config = dataclasses.replace(
        tiny_config,
        tokenizer=dataclasses.replace(tiny_config.tokenizer, **pursuit),
        loss=dataclasses.replace(tiny_config.loss, **semantic),
        run=dataclasses.replace(tiny_config.run, start="principal"),
    )
    result = estimate(config, 1, "h100", 0.5)
    vocabulary = Vocabulary.load(config.vocabulary.path)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    _, state = create(config, vocabulary, np.zeros((60, 0), np.float32), np.zeros(60, np.float32), mesh)
    assert result["parameters"]["encoder"] == scalars(state.params["encoder"])
    assert result["parameters"]["discriminator"] == 0
    frozen = result["parameters"]["frozen"]
    assert (frozen["codebook_vc"], frozen["meaning_codebook_vd"]) == (60 * 4, 60 * 8)
    # Parameters, their average and two moments of Adam; 4 bytes each.
    state_bytes = 4 * 4 * scalars(state.params)
    batch_bytes = 8 * (32 * 32 * 3 + 4 * 5)  # pixels and words
    constants = 4 * sum(frozen.values())
    assert result["memory"]["arguments"] == pytest.approx(state_bytes + batch_bytes + constants, rel=0.02)
    seconds = (result["flops"] - result["exact_flops"]) / 494e12 + result["exact_flops"] / 67e12
    assert result["images_per_second"] == pytest.approx(8 / (seconds / 0.5))
    assert result["hours"] == pytest.approx(10 * seconds / 0.5 / 3600)
    shown = table(result)
    assert "8 images" in shown
    assert "1 x NVIDIA H100 (float32) at 50% of their peak" in shown
    if jax.device_count() > 1:
        two = estimate(config, 2, "h100", 0.5)
        assert two["flops"] == result["flops"]
        assert two["hours"] == pytest.approx(result["hours"] / 2)
        assert two["memory"]["temporary"] < 0.8 * result["memory"]["temporary"]


def test_through_the_command_line(tmp_path) -> None:
    arguments = [str(CONFIGS / "default64.py"), "--variant", "tiny", "--dry-run", "--device", "v5e"]
    arguments += ["--devices", "4", "--json", "--vocabulary.words", "60", "--vocabulary.widths", "4", "8"]
    arguments += ["--loss.adversarial", "0", "--loss.semantic", "0", "--mesh.fsdp", "2"]
    arguments += ["--tokenizer.network", "linear"]  # compiled in a moment
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "tokenizer_train.cli", *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["devices"], result["device"], result["utilisation"]) == (4, "TPU v5e", 0.4)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_estimated_is_said(tiny_config, capsys) -> None:
    with pytest.raises(InputError, match="--device must be one of a100, h100"):
        estimate(tiny_config, 1, "abacus")
    with pytest.raises(InputError, match="--utilisation must be above 0"):
        estimate(tiny_config, 1, "h100", 40)
    with pytest.raises(InputError, match="--devices must be 1"):
        estimate(tiny_config, 0, "h100")
    if jax.device_count() > 1:
        with pytest.raises(InputError, match="--device cpu is this machine"):
            estimate(tiny_config, 2, "cpu")
    nowhere = dataclasses.replace(tiny_config, vocabulary=VocabularyConfig(path="nowhere"))
    with pytest.raises(InputError, match=r"no vocabulary at 'nowhere'.*vocabulary\.words"):
        estimate(nowhere, 1, "h100")
    # Without --dry-run its options are none.
    with pytest.raises(SystemExit) as stopped:
        main([str(CONFIGS / "default64.py"), "--device", "h100"])
    assert stopped.value.code == 2
    assert "--device" in capsys.readouterr().err


def test_files_that_are_missing_are_told(tiny_config, tmp_path) -> None:
    assert [line for line in missing(tiny_config) if not line.startswith("guidance: ")] == []
    (empty := tmp_path / "clip").mkdir()
    bad = dataclasses.replace(
        tiny_config,
        vocabulary=VocabularyConfig(path="nowhere"),
        data=DataConfig(train="nowhere/*.tar", mixture=((str(empty), 1.0),), validation=None),
        run=dataclasses.replace(tiny_config.run, initial="nowhere"),
        guidance=f"clip:{empty}",
    )
    told = dict(line.split(": ", 1) for line in missing(bad))
    assert list(told) == ["vocabulary.path", "data.train", "data.mixture", "run.initial", "guidance"]
    assert told["data.train"].startswith("nothing at nowhere/*.tar")
    assert told["guidance"].startswith(f"expected one safetensors file of CLIP at {empty}, found 0")


def test_a_bundle_that_does_not_fit_is_told(tiny_config, linear_config, tmp_path) -> None:
    """What training would refuse at once, a dry run tells."""
    vocabulary = linear_config.vocabulary.load()
    widths = [vocabulary.codebook(view).shape[1] for view in ("appearance", "meaning")]
    for name, config in (("same", linear_config.tokenizer), ("other", tiny_config.tokenizer)):
        autoencoder = drawn(lambda rngs, config=config: Autoencoder(config, *widths, rngs=rngs))
        Tokenizer(config, vocabulary, autoencoder).save(tmp_path / name)
        run = dataclasses.replace(linear_config.run, initial=str(tmp_path / name))
        found = estimate(dataclasses.replace(linear_config, run=run), 1, "h100")["missing"]
        told = [line for line in found if line.startswith("run.initial")]
        assert len(told) == (name == "other"), found
    assert "other has parameters that this tokenizer lacks" in told[0]


def test_a_shape_that_is_assumed_is_told(tmp_path, monkeypatch) -> None:
    golden = Path(__file__).parents[1] / "golden" / "frozen_lm" / "llama"
    fetched = []

    def locate(name: str) -> Located:
        fetched.append(name)
        if "/typo/" in name:
            raise InputError("the hub has no such thing")
        return Located(golden / "config.json", "repo", name, "0123")

    monkeypatch.setattr(shapes, "locate", locate)
    monkeypatch.chdir(tmp_path)
    found = shapes._language_model("hf:org/repo")
    assert (found.width, fetched) == (32, ["hf:org/repo/config.json"])  # the weights are not
    config = load_config(CONFIGS / "connector_llava.py")
    for name, reason in (("hf:org/typo", "the hub has no such thing"), ("typo", "there is no typo")):
        assert shapes._language_model(name) == shapes.LLAMA_7B
        told = missing(dataclasses.replace(config, language_model=name, trunk="clip:nowhere"))
        told = dict(line.split(": ", 1) for line in told)
        assert reason in told["language_model"]
        assert told["language_model"].endswith("the shape of Llama 7B is assumed")
        assert told["trunk"].endswith("the shape of CLIP ViT-L/14 at 336 px is assumed")
    known = missing(dataclasses.replace(config, language_model=str(golden)))
    assert not [line for line in known if line.startswith("language_model")]


def test_small_runs_take_minutes_and_this_machine_is_measured(monkeypatch) -> None:
    assert (dry_run._duration(0.2), dry_run._duration(1234.5)) == ("12.0 minutes", "1,234.50 hours")
    assert dry_run._duration(0.01) == "36.0 seconds"
    monkeypatch.setattr(dry_run, "measured_peak", lambda: 50e9)
    name, peaks = dry_run._peaks("cpu")
    assert name == "this machine's processor, 50 GFLOP/s by a product of two matrices"
    assert set(peaks.values()) == {50e9}
    for kind in DEVICES.values():
        assert peak(kind, "bfloat16") == PEAKS[kind]["bfloat16"]
    assert peak("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16") is None


def test_a_folder_that_is_there_counts_more_than_what_the_config_says(vocabulary_folder) -> None:
    found = dry_run._vocabulary(VocabularyConfig(path=str(vocabulary_folder), words=7, widths=(1, 2)))
    assert (len(found), found.codebook("appearance").shape) == (60, (60, 4))
    absent = dry_run._vocabulary(VocabularyConfig(path="nowhere", words=7, widths=(1, 2)))
    assert (len(absent), absent.codebook("meaning").shape) == (7, (7, 2))
    lqae = load_config(CONFIGS / "lqae256.py")
    folder = str(CONFIGS.parent / "tests" / "golden" / "masked_lm" / "roberta")
    model = dry_run._language_model(dataclasses.replace(lqae, language_model=folder), absent)
    assert model.table.embedding[...].shape == (326, 32)
    for wrong in ({"words": 0}, {"widths": (0, 1)}):
        with pytest.raises(InputError, match=r"vocabulary\.w"):
            VocabularyConfig(path="nowhere", **wrong)
