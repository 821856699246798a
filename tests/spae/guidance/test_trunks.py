"""Trunks in bundles: what a tokenizer with one holds, and what is refused."""

import numpy as np
import pytest
from drawn import drawn
from flax import nnx

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import BundleError, InputError
from spae.guidance.clip.towers import ClipImageTower, ImageSizes
from spae.guidance.conse import ConseImageTower
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary

SIZES = ImageSizes(
    width=8,
    inner=12,
    layers=1,
    heads=2,
    activation="gelu",
    image_size=16,
    patch=8,
    out=6,
    mean=(0.5, 0.4, 0.3),
    deviation=(0.2, 0.3, 0.4),
)


@pytest.fixture(scope="module")
def clip() -> ClipImageTower:
    return drawn(lambda rngs: ClipImageTower(SIZES, rngs=rngs), 1)


def config(kind: str) -> AutoencoderConfig:
    return AutoencoderConfig(
        image_size=8,
        pyramid=(1, 2),
        filters=4,
        multipliers=(1,),
        blocks=1,
        downsamplings=0,
        patch=4,
        meaning_layers=1,
        head_width=4,
        trunk=kind,
    )


def tokenizer(trunk) -> Tokenizer:
    chosen = config("clip" if isinstance(trunk, ClipImageTower) else "conse")
    embeddings = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.raw()}
    words = tuple(a + b for a in "abcd" for b in "klmno")
    vocabulary = Vocabulary(words, np.arange(20), embeddings, views, {"model": "random"})
    model = drawn(lambda rngs: Autoencoder(chosen, 4, 4, trunk.width, rngs=rngs))
    return Tokenizer(chosen, vocabulary, model, trunk, {"note": "kept"})


def arrays(module: nnx.Module) -> dict:
    return {path: np.asarray(value[...]) for path, value in nnx.to_flat_state(nnx.state(module))}


@pytest.mark.parametrize("kind", ["clip", "conse"])
def test_a_bundle_holds_its_trunk(kind, clip, tmp_path) -> None:
    trunk = clip if kind == "clip" else drawn(lambda rngs: ConseImageTower(rngs=rngs), 1)
    tokenizer(trunk).save(tmp_path / "b")
    loaded = Tokenizer.load(tmp_path / "b")
    before, after = arrays(trunk), arrays(loaded.trunk)
    assert before.keys() == after.keys()
    for path in before:
        np.testing.assert_array_equal(before[path], after[path])
    assert loaded.info == {"note": "kept"}
    if kind == "clip":
        assert loaded.trunk.sizes == SIZES
    # What was loaded can be saved again, to the same bytes.
    loaded.save(tmp_path / "again")
    for file in (tmp_path / "b").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info["trunk"].pop("patch"), "lacks or has one field too many.*patch"),
        (lambda info: info["trunk"].update(depth=1), "lacks or has one field too many.*depth"),
        (lambda info: info["trunk"].update(layers=2), r"trunk\.blocks\.1\."),
        (lambda info: info["trunk"].update(out=7), r"trunk\.projection of shape \(8, 7\)"),
        (lambda info: info.pop("trunk"), "lacks or has one field too many"),
    ],
)
def test_a_bundle_that_tells_other_sizes(change, message, clip, tmp_path) -> None:
    tokenizer(clip).save(tmp_path / "b")
    info, files = bundle.read(tmp_path / "b")
    change(info)
    bundle.write(tmp_path / "b", {key: value for key, value in info.items() if key != "files"}, files)
    with pytest.raises(BundleError, match=message):
        Tokenizer.load(tmp_path / "b")


def test_a_trunk_of_another_kind(clip) -> None:
    made = tokenizer(clip)
    model = drawn(lambda rngs: Autoencoder(made.config, 4, 4, 6, rngs=rngs))
    with pytest.raises(InputError, match="of kind 'clip', got NoneType"):
        Tokenizer(made.config, made.vocabulary, model)
    for kind in ("conse", "none"):
        other = AutoencoderConfig(**{**vars(made.config), "trunk": kind, "meaning_layers": 1})
        with pytest.raises(InputError, match=f"of kind '{kind}', got ClipImageTower"):
            Tokenizer(other, made.vocabulary, model, clip)
