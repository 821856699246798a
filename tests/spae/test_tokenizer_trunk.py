"""A tokenizer with a trunk keeps it in its bundle: what is loaded needs no weight package and gives the same words."""

import dataclasses

import numpy as np
import pytest
from drawn import drawn
from flax import nnx

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import BundleError, InputError
from spae.guidance.conse import ConseImageTower
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    config = AutoencoderConfig(
        image_size=8,
        pyramid=(1, 2, 4),
        filters=4,
        multipliers=(1,),
        blocks=1,
        downsamplings=1,
        meaning_layers=2,
        head_width=8,
        trunk="conse",
    )
    embeddings = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcde" for b in "klmnop")
    trunk = drawn(lambda rngs: ConseImageTower(rngs=rngs), 1)
    model = drawn(lambda rngs: Autoencoder(config, 4, 8, trunk.width, rngs=rngs))
    return Tokenizer(config, Vocabulary(words, np.arange(30), embeddings, views, {}), model, trunk)


def test_the_bundle_holds_the_trunk(tokenizer, tmp_path, monkeypatch):
    def absent(*_):
        raise AssertionError("the trunk was looked for in a package")

    tokenizer.save(tmp_path / "bundle")
    monkeypatch.setattr("spae.guidance.conse.image_tower", absent)
    loaded = Tokenizer.load(tmp_path / "bundle")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    assert loaded.encode(images) == tokenizer.encode(images)
    assert loaded.fingerprint == tokenizer.fingerprint
    what = "<Tokenizer: 8x8 images to 21 words (1x1 2x2 4x4) of 30; "
    assert repr(tokenizer) == f"{what}made in this program>"
    assert repr(loaded) == f"{what}loaded from {tmp_path / 'bundle'}>"
    loaded.save(tmp_path / "rounded", dtype="float16")
    assert Tokenizer.load(tmp_path / "rounded").fingerprint != tokenizer.fingerprint


def test_text_that_is_not_whole_is_warned_of_and_strictly_refused(tokenizer):
    words = "ak al am an ao"
    tokenizer.decode([words, words], strict=True)
    with pytest.warns(UserWarning, match="21 words wanted for 3 layers, 7 found: 14 missing") as warned:
        tokenizer.decode(f"{words} bk bl")
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="left out"):
        tokenizer.decode(f"{words} bk bl", layers=2)
    with pytest.raises(InputError, match="got 5 texts of one word: wanted one text of all"):
        tokenizer.decode(words.split())
    assert tokenizer.decode(words.split(), layers=1).shape == (5, 8, 8, 3)
    for text, layers in ((f"{words} bk bl", 2), ("ak al am an xxxx", None), (f"{words} bk", None)):
        with pytest.raises(InputError, match="found: "):
            tokenizer.decode(text, layers, strict=True)


def test_the_fingerprint_outlives_new_fields(tokenizer):
    """A choice that a later version adds, at the default that is today's behaviour, makes no other tokenizer of it."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(AutoencoderConfig):
        added: int = 0

    def fingerprint(config: AutoencoderConfig) -> str:
        model = nnx.merge(tokenizer._graph, tokenizer.parameters)
        return Tokenizer(config, tokenizer.vocabulary, model, tokenizer.trunk).fingerprint

    fields = dataclasses.asdict(tokenizer.config)
    assert fingerprint(Later(**fields)) == fingerprint(tokenizer.config) == tokenizer.fingerprint
    assert fingerprint(Later(**fields, added=1)) != tokenizer.fingerprint
    assert fingerprint(dataclasses.replace(tokenizer.config, fill="zeros")) != tokenizer.fingerprint


def test_a_bundle_without_its_trunk(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "whole")
    info, files = bundle.read(tmp_path / "whole")
    params = files["params.safetensors"]
    files["params.safetensors"] = {k: v for k, v in params.items() if not k.startswith("trunk.labels")}
    bundle.write(tmp_path / "part", info, files)
    with pytest.raises(BundleError, match=r"wanted parameter trunk\.labels .* missing"):
        Tokenizer.load(tmp_path / "part")
