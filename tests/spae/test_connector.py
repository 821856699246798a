"""Connectors: every kind's forward against NumPy, prompts with images, bundles, and what is refused."""

import dataclasses
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import spae
from spae import connector, frozen_lm
from spae.connector import Connector, Reader, build, export, load, prompt_embeddings
from spae.connector_config import LOOKS, ConnectorConfig, parse_trunk
from spae.errors import BundleError, InputError
from spae.frozen_lm import SOFT
from spae.guidance.features import features, features_shape, load_trunk
from spae.images import to_array

GOLDEN = Path(__file__).parents[1] / "golden"
CLIP = f"clip:{GOLDEN / 'clip_hugging_face'}"
KINDS = sorted(LOOKS)


@pytest.fixture(scope="module")
def lm() -> frozen_lm.FrozenLM:
    return frozen_lm.load(GOLDEN / "frozen_lm" / "llama")


@pytest.fixture(scope="module")
def trunk():
    """A tiny CLIP with random weights, of two blocks: three states."""
    return dataclasses.replace(load_trunk(CLIP), layers=(-2, 2, 0))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 30 + 5 * i, 3), np.uint8) for i in range(3)]


def made(kind: str, trunk, lm, grid=None, info=None) -> Connector:
    config = ConnectorConfig(kind=kind, grid=grid)
    return Connector(config, build(config, trunk, 32, nnx.Rngs(3)), trunk, Reader.of(lm), info)


def by_numpy(one: Connector, seen_bnc: np.ndarray) -> np.ndarray:
    """The map in double precision, written out."""
    params = {name: np.float64(x) for name, x in connector.flatten(nnx.state(one._network), "").items()}
    x = np.float64(seen_bnc)
    if one.config.kind == "multilayer":
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * params["norm.scale"] + params["norm.bias"]
    x = x @ params["first.kernel"] + params["first.bias"]
    if one.config.kind in ("mlp", "multilayer"):
        x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))  # GELU, exactly
        x = x @ params["second.kernel"] + params["second.bias"]
    return x.reshape(len(x), -1, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_what_it_says(kind, trunk, lm, images) -> None:
    one = made(kind, trunk, lm)
    squares = np.stack([to_array(image, trunk.image_size) for image in images]).astype(np.float32) / 255
    states = [np.asarray(x) for x in trunk.network.states(jnp.asarray(squares))]
    if kind == "frozen":
        seen = np.asarray(trunk.network.pooled(jnp.asarray(squares)))[:, None]
    else:
        maps = [states[layer] for layer in (trunk.layers if kind == "multilayer" else trunk.layers[:1])]
        seen = np.concatenate([x.reshape(3, -1, x.shape[-1]) for x in maps], -1)
    found = one.soft_tokens(images)
    assert found.shape == (3, one.tokens, 32)
    assert found.dtype == np.float32
    assert one.tokens == (2 if kind == "frozen" else trunk.network.cells**2)
    np.testing.assert_allclose(found, by_numpy(one, seen), atol=2e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert one.soft_tokens([]).shape == (0, one.tokens, 32)


def test_the_states_are_those_of_the_tower(trunk, images) -> None:
    tower = trunk.network
    squares = jnp.asarray(np.stack([to_array(one, 32) for one in images]).astype(np.float32) / 255)
    vectors = np.asarray(tower.pooled(squares) @ tower.projection[...])
    np.testing.assert_allclose(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True), tower(squares), atol=1e-5
    )
    states = tower.states(squares)
    assert len(states) == len(tower.blocks) + 1
    np.testing.assert_allclose(
        states[-2].reshape(3, -1, 32), tower._before_last_block(squares)[:, 1:], atol=1e-6
    )


def test_a_grid_is_the_mean_of_cells(trunk, lm, images) -> None:
    side = trunk.network.cells
    assert side == 4
    squares = jnp.asarray(np.stack([to_array(one, 32) for one in images]).astype(np.float32) / 255)
    whole = np.asarray(features(trunk.network, squares, "map", trunk.layers)).reshape(3, side, side, -1)
    pooled = np.asarray(features(trunk.network, squares, "map", trunk.layers, 2))
    means = whole.reshape(3, 2, 2, 2, 2, -1).mean(axis=(2, 4)).reshape(3, 4, -1)
    np.testing.assert_allclose(pooled, means, atol=1e-5)
    assert made("mlp", trunk, lm, grid=2).tokens == 4


def test_the_packaged_network_has_what_every_kind_takes() -> None:
    try:
        packaged = load_trunk("efficientnet")
    except InputError as error:
        pytest.skip(str(error))
    assert features_shape(packaged, "pooled", None) == (1, 1280)
    assert features_shape(packaged, "map", None) == (49, 1280)
    assert features_shape(packaged, "layers", 3) == (9, 1280 + 192 + 112 + 80 + 40)


def test_a_prompt_has_its_images_in_their_places(trunk, lm, images) -> None:
    one = made("linear", trunk, lm, grid=2)
    prompt = one.prompt(lm, "dog <image> and <image>: ", images[:2])
    soft = one.soft_tokens(images[:2])
    rows = prompt_embeddings(lm, prompt)
    first, second = lm.encode("dog "), len(lm.encode("dog ")) + 4 + len(lm.tokenizer.encode(" and "))
    np.testing.assert_array_equal(rows[len(first) : len(first) + 4], soft[0])
    np.testing.assert_array_equal(rows[second : second + 4], soft[1])
    np.testing.assert_array_equal(rows[: len(first)], lm.embed(first))
    assert prompt.ids.count(SOFT) == 8
    assert len(lm.generate([prompt], 3)[0].log_probs) <= 3


def test_soft_tokens_for_other_engines(trunk, lm, images, tmp_path) -> None:
    prompt = made("frozen", trunk, lm).prompt(lm, "<image> a dog", images[:1])
    export(tmp_path / "prompt.safetensors", lm, prompt)
    found = safetensors.numpy.load_file(tmp_path / "prompt.safetensors")["prompt_embeds"]
    np.testing.assert_array_equal(found, prompt_embeddings(lm, prompt))
    assert found.shape == (len(prompt), 32)
    with pytest.raises(InputError, match=r"\.safetensors file to write"):
        export(tmp_path / "prompt.npy", lm, prompt)
    other = frozen_lm.SoftPrompt([SOFT], np.zeros((1, 8)))
    with pytest.raises(InputError, match="of another model"):
        prompt_embeddings(lm, other)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory, lm):
    """A connector, and the folder of its bundle, with the CLIP as it is loaded."""
    plain = load_trunk(CLIP)
    one = made("mlp", plain, lm, grid=2, info={"training": {"images": 7}})
    folder = tmp_path_factory.mktemp("bundle") / "connector"
    one.save(folder)
    return one, folder


def test_a_bundle_gives_the_same_soft_tokens(bundled, lm, images) -> None:
    one, folder = bundled
    again = load(folder, lm, CLIP)
    np.testing.assert_array_equal(again.soft_tokens(images), one.soft_tokens(images))
    assert (again.config, again.reader, again.info) == (one.config, one.reader, one.info)
    assert sorted(file.name for file in folder.iterdir()) == ["bundle.json", "connector.safetensors"]
    info = json.loads((folder / "bundle.json").read_text())
    assert info["reader"]["sha256"] == lm.sha256()
    assert info["reader"]["tokens_sha256"] == lm.tokenizer.sha256
    assert info["trunk"]["kind"] == "clip"


def test_another_model_or_trunk_is_refused(bundled, lm, tmp_path) -> None:
    one, folder = bundled
    for name, message in (
        ("qwen2", r"parameters of sha256|tokens of sha256"),
        ("gemma3", r"tokens of sha256|parameters of sha256"),
    ):
        with pytest.raises(InputError, match=message):
            load(folder, frozen_lm.load(GOLDEN / "frozen_lm" / name), CLIP)
    with pytest.raises(InputError, match=r"clip, which is not in it: give trunk=clip:PATH"):
        load(folder, lm)
    with pytest.raises(InputError, match="was trained with another trunk"):
        load(folder, lm, f"clip:{GOLDEN / 'clip_openai'}")
    wider = dataclasses.replace(one.reader, width=64)
    narrow = Connector(one.config, one._network, one.trunk, wider)
    with pytest.raises(InputError, match="of width 64 for this connector, got llama of width 32"):
        narrow.prompt(lm, "<image>", [])
    with pytest.raises(BundleError, match=r"is a tokenizer's: spae\.load reads it"):
        load("default")
    with pytest.raises(BundleError, match=r"is a connector's: spae\.connector\.load"):
        spae.load(folder)


def test_what_does_not_fit_is_refused(bundled, lm, images) -> None:
    one, _ = bundled
    with pytest.raises(InputError, match=r"got 2 for 1"):
        one.prompt(lm, "<image>", images[:2])
    with pytest.raises(InputError, match=r"got 0 for 1"):
        one.prompt(lm, "<image>", [])
    with pytest.raises(InputError, match="is one of frozen, linear"):
        ConnectorConfig(kind="deep")
    with pytest.raises(InputError, match="no map to pool"):
        ConnectorConfig(kind="frozen", grid=2)
    with pytest.raises(InputError, match="1 to 4, got 9"):
        made("linear", one.trunk, lm, grid=9)
    with pytest.raises(InputError, match=r"wanted the layers .* of a network that has 3"):
        made("multilayer", one.trunk, lm)
    for name in ("resnet", "clip:", "efficientnet:x"):
        with pytest.raises(InputError, match="wanted the trunk"):
            parse_trunk(name)
