"""Where a run begins: principal components against NumPy's SVD, candidates word by word, and the floor itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CONFIGS
from flax import nnx

import spae
from spae.architecture import AutoencoderConfig
from spae.errors import InputError
from spae.images import to_array
from spae.sources import open_source
from spae.vocabulary import Vocabulary
from tokenizer_train import start
from tokenizer_train.cli import main
from tokenizer_train.config import Config, DataConfig, LossConfig, RunConfig, VocabularyConfig
from tokenizer_train.processes.mesh import make_mesh
from tokenizer_train.start import SPREAD, candidates, families_of, in_dictionary, principal
from tokenizer_train.state import create, tokenizer


@pytest.mark.parametrize(("latents", "patch"), [(4, 4), (12, 2)])
def test_components_are_those_of_the_svd(latents, patch, monkeypatch) -> None:
    monkeypatch.setattr(start, "_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (10, 4, 4, 3))
    noise = rng.normal(scale=20, size=(10, 16, 16, 3))
    images = np.clip(small.repeat(4, 1).repeat(4, 2) + noise, 0, 255).astype(np.uint8)
    view = rng.normal(size=(50, 13)).astype(np.float32)
    found = principal(images, view, latents, patch)

    patches = [
        image[r : r + patch, c : c + patch].reshape(-1) / 255 - 0.5
        for image in images
        for r in range(0, 16, patch)
        for c in range(0, 16, patch)
    ]
    x_mp = np.stack(patches)
    mean_p = x_mp.mean(0)
    _, lengths, axes = np.linalg.svd(x_mp - mean_p, full_matrices=False)
    axes_pc = axes[:latents].T
    np.testing.assert_allclose(found["patch_mean"], mean_p, atol=1e-6)
    # The same axes, each with its largest entry above 0.
    components_pc = found["components"]
    np.testing.assert_allclose(np.abs((components_pc * axes_pc).sum(0)), 1, atol=1e-4)
    np.testing.assert_allclose(components_pc.T @ components_pc, np.eye(latents), atol=1e-5)
    assert (components_pc[np.abs(components_pc).argmax(0), np.arange(latents)] > 0).all()
    # As much variance as the SVD leaves to so many axes.
    parts_mc = (x_mp - mean_p) @ components_pc
    variances = lengths[:latents] ** 2 / (len(x_mp) - 1)
    np.testing.assert_allclose(parts_mc.var(0, ddof=1), variances, rtol=1e-4)
    # Words seen through the map spread SPREAD times as wide as the patches, along every component.
    words_vc = 13**0.5 * view @ found["map"]
    np.testing.assert_allclose(words_vc.std(0), SPREAD * variances**0.5, rtol=1e-4)
    assert np.count_nonzero(found["map"]) == latents


def test_more_latents_than_there_are_components() -> None:
    images, view = np.zeros((2, 8, 8, 3), np.uint8), np.ones((9, 20), np.float32)
    for latents, words, patch in ((13, 20, 2), (21, 20, 4)):
        with pytest.raises(InputError, match=rf"latents of {latents} .*at most {3 * patch**2} .*and {words}"):
            principal(images, view, latents, patch)


def test_candidates_are_the_best_words_of_any_image(monkeypatch) -> None:
    monkeypatch.setattr(start, "BEST", 2)
    rng = np.random.default_rng(0)
    seen, words = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=(40, 6)).astype(np.float32)
    wanted: set[int] = set()
    for image in seen - seen.mean(0):
        centred = [word - words.mean(0) for word in words]
        scores = [image @ word / np.linalg.norm(word) for word in centred]
        wanted |= set(np.argsort(scores)[-2:].tolist())
    every = np.ones(len(words), bool)
    assert candidates(seen, words, every).tolist() == sorted(wanted)
    assert candidates(seen, words[:2], every[:2]).tolist() == [0, 1]
    assert candidates(seen, words, np.arange(len(words)) % 2 == 0).tolist() == sorted(
        i for i in wanted if i % 2 == 0
    )


def test_families_are_words_of_one_stem() -> None:
    words = ("pup", "cat", "pups", "running", "dog", "runs", "cats")
    families = families_of(words)
    assert families.dtype == np.int32
    together = {
        tuple(sorted(w for w, f in zip(words, families, strict=True) if f == one)) for one in families
    }
    assert together == {("pup", "pups"), ("cat", "cats"), ("running", "runs"), ("dog",)}


@pytest.fixture
def config(vocabulary_folder, image_folder, tmp_path) -> Config:
    """Two words at each of 8 x 8 places, in latents of the four components that the vocabulary has."""
    return Config(
        tokenizer=AutoencoderConfig(
            image_size=32,
            pyramid=(2, 8, 8),
            filters=8,
            multipliers=(1,),
            blocks=1,
            downsamplings=1,
            patch=2,
            skip=True,
            codebook="mapped",
            latents=4,
        ),
        vocabulary=VocabularyConfig(path=str(vocabulary_folder)),
        data=DataConfig(train=str(image_folder), validation=str(image_folder), threads=1),
        loss=LossConfig(semantic=0.0, semantic_layers=0, adversarial=0.0),
        run=RunConfig(output=str(tmp_path / "run"), start="principal"),
    )


@pytest.mark.parametrize("more", [{"block": "residual"}, {"block": "depthwise", "map_width": 6}], ids=str)
def test_a_run_begins_as_the_floor(config, image_folder, more) -> None:
    """The networks beside the linear paths, and the perceptron beside the map, add nothing yet: the same words and
    pixels as network "linear"."""
    vocabulary, source = Vocabulary.load(config.vocabulary.path), open_source(image_folder)
    images = [record.image for record in source][::4]
    results = []
    for changes in (more, {"network": "linear"}):
        one = dataclasses.replace(config, tokenizer=dataclasses.replace(config.tokenizer, **changes))
        begun, pursuit = start.beginning(one, vocabulary, None, source)
        assert pursuit is None
        mesh = make_mesh(one.mesh, jax.devices()[:1])
        nothing = np.zeros((60, 0), np.float32), np.zeros(60, np.float32)
        modules, state = create(one, vocabulary, *nothing, mesh, begun)
        made = tokenizer(modules, state, one, vocabulary, None, mesh)
        pyramids = made.encode(images)
        results.append(
            (pyramids, made._compiled._decode(made._params, jnp.asarray(zhat(made, pyramids)), (), None, 4))
        )
    (first, seen), (second, floor) = results
    assert first == second
    np.testing.assert_allclose(seen, floor, atol=1e-6)
    # By hand: the latents are the components of each patch.
    begun, square = begun, to_array(images[0], 32)
    patch = square[4:8, 8:12].reshape(-1) / 255 - 0.5
    model = nnx.merge(made._graph, made._params)
    z_bhwc = model.encode(jnp.asarray(square[None] / 255, jnp.float32), None, vocabulary.codebook("meaning"))[
        0
    ]
    np.testing.assert_allclose(
        z_bhwc[0, 1, 2], (patch - begun["patch_mean"]) @ begun["components"], atol=1e-5
    )


def zhat(made, pyramids):
    ids = tuple(np.stack([one.ids[l] for one in pyramids]) for l in range(3))
    return made._compiled._average(ids, made._codebooks["appearance"])


def test_the_start_is_kept_and_images_that_cannot_be_read_are_left_out(
    config, image_folder, tmp_path, capsys
) -> None:
    vocabulary = Vocabulary.load(config.vocabulary.path)
    folder = tmp_path / "some"
    folder.mkdir()
    for number, file in enumerate(sorted(image_folder.rglob("*.png"))[:6]):
        (folder / f"{number}.png").write_bytes(file.read_bytes())
    whole = start.load(config, vocabulary, None, open_source(folder, 32), tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    made = file.stat().st_mtime_ns
    again = start.load(config, vocabulary, None, open_source(folder, 32), tmp_path / "cache")
    assert file.stat().st_mtime_ns == made
    for name, value in whole.items():
        np.testing.assert_array_equal(again[name], value)
    (folder / "9.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(InputError, match=r"9\.png.*--data\.damaged skip"):
        start.load(config, vocabulary, None, open_source(folder, 32), tmp_path / "cache")
    skipping = dataclasses.replace(config, data=dataclasses.replace(config.data, damaged="skip"))
    rest = start.load(skipping, vocabulary, None, open_source(folder, 32), tmp_path / "cache")
    assert "9.png" in capsys.readouterr().err
    for name, value in whole.items():
        np.testing.assert_array_equal(rest[name], value)
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(InputError, match=r"start-.*\.safetensors is damaged .*delete it"):
        start.load(config, vocabulary, None, open_source(folder, 32), tmp_path / "cache")
    for one in folder.iterdir():
        one.write_bytes(b"nothing")
    with pytest.raises(InputError, match="none of 7 images could be read"):
        start.load(skipping, vocabulary, None, open_source(folder, 32), tmp_path / "cache")


def test_too_few_candidates_for_the_places(config) -> None:
    """Twelve words of four families, for the five places of two layers."""
    rng = np.random.default_rng(0)
    tensors = {
        "components": np.zeros((48, 4), np.float32),
        "pursuit.ids": np.arange(12, dtype=np.int32),
        "pursuit.families": np.arange(12, dtype=np.int32) // 3,
        "pursuit.vectors": rng.normal(size=(12, 6)).astype(np.float32),
        "pursuit.image_mean": np.zeros(6, np.float32),
        "pursuit.colours": np.zeros((12, 4), np.float32),
        "pursuit.patch_kernel": np.zeros((48, 4), np.float32),
        "pursuit.patch_bias": np.zeros(4, np.float32),
    }
    pursued = {"pyramid": (1, 2, 8), "meaning_layers": 2, "meaning": "pursuit", "trunk": "conse"}
    for pools, message in (
        ((1, 2), "5 families, .*got 4 among 12 candidates"),
        ((1, 8), "each chosen among 8"),
    ):
        tokenizer = dataclasses.replace(config.tokenizer, **pursued, pools=pools)
        with pytest.raises(InputError, match=message):
            start.pursuit(dataclasses.replace(config, tokenizer=tokenizer), tensors)


def test_the_floor_through_the_command_line(vocabulary_folder, image_folder, tmp_path, capsys) -> None:
    """No step at all: a bundle that encodes, decodes and is evaluated."""
    arguments = [str(CONFIGS / "default64.py"), "--variant", "linear", "--tokenizer.latents", "4"]
    arguments += ["--vocabulary.path", str(vocabulary_folder), "--run.output", str(tmp_path / "run")]
    arguments += ["--data.train", str(image_folder), "--data.validation", str(image_folder)]
    assert main(arguments) == 0
    loaded = spae.load(tmp_path / "run" / "bundle")
    image = open_source(image_folder)[0].image
    pyramid = loaded.encode(image)
    assert loaded.shape.tokens() == 512
    square, decoded = to_array(image, 64).astype(float), loaded.decode(pyramid.text())
    # Of sixty words and four components nobody wants more than that it shows more than the mean colour.
    assert np.abs(decoded - square).mean() < np.abs(square.mean((0, 1)) - square).mean()
    capsys.readouterr()
    skip = ["--skip", "codecs", "stlpips", "guidance", "frechet"]
    evaluated = ["eval", str(tmp_path / "run" / "bundle"), str(image_folder), "--limit", "4", *skip, "--json"]
    assert main(evaluated) == 0
    assert '"psnr"' in capsys.readouterr().out
    # Asked again, there is nothing to go on with, and the same bundle is written.
    assert main(arguments) == 0
    assert spae.load(tmp_path / "run" / "bundle").fingerprint == loaded.fingerprint


def test_what_the_dictionary_has():
    words = ["dog", "dogs", "painting", "por", "mah", "ich", "didn", "american"]
    assert in_dictionary(words).tolist() == [True] * 3 + [False] * 5
