"""The words that paint a colour, against what decoding each word everywhere in a picture gives."""

import dataclasses

import numpy as np
import pytest
from drawn import drawn

from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.palette import COLOURS, WORDS
from spae.pyramid import Pyramid
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary

COUNT = 256  # words
CONFIG = AutoencoderConfig(
    image_size=8,
    pyramid=(1, 4, 4),
    downsamplings=1,
    network="linear",
    skip=True,
    codebook="mapped",
    latents=6,
)


def made(config: AutoencoderConfig) -> Tokenizer:
    embeddings = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 8)}
    words = tuple(f"{a}{b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop")
    model = drawn(lambda rngs: Autoencoder(config, 8, 8, rngs=rngs))
    if config.skip:
        # Flat patches of all colours, as far as the words go, and some texture.
        rng = np.random.default_rng(1)
        flat_cp = np.tile(rng.normal(scale=0.2, size=(6, 3)), 4) + rng.normal(scale=0.02, size=(6, 12))
        model.decoder.skip.kernel[...] = flat_cp.astype(np.float32)
        model.decoder.skip.bias[...] = np.full(12, 0.5, np.float32)
    return Tokenizer(config, Vocabulary(words, np.arange(COUNT), embeddings, views, {}), model)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return made(CONFIG)


def test_they_are_nearest_to_their_colours_when_they_are_decoded(tokenizer):
    flat = [
        Pyramid(
            tuple(np.full(grid, i) for grid in tokenizer.shape.layers), tokenizer.shape, tokenizer.vocabulary
        )
        for i in range(COUNT)
    ]
    # As the network gives them, before they are cut to what a screen shows.
    painted = []
    for part in (flat[i : i + 32] for i in range(0, COUNT, 32)):
        ids = [np.stack([one.ids[l] for one in part]) for l in range(len(tokenizer.shape))]
        painted.append(tokenizer._compiled.decode(tokenizer.parameters, ids, tokenizer._codebooks))
    painted_vhwk = np.concatenate(painted)
    colours = np.array(list(COLOURS.values())) / 255
    distance_vn = ((painted_vhwk[:, None] - colours[:, None, None]) ** 2).mean(axis=(2, 3, 4))
    nearest = distance_vn.argmin(axis=1)
    assert len(tokenizer.palette) >= 6
    for number, colour in enumerate(COLOURS):
        own = np.flatnonzero(nearest == number)
        best = own[distance_vn[own, number].argsort()[:WORDS]]
        assert tokenizer.palette.get(colour, []) == [tokenizer.vocabulary.words[i] for i in best]
        assert (distance_vn[best, number] < np.median(distance_vn[:, number])).all()


def test_another_network_paints_otherwise(tokenizer):
    before = dict(tokenizer.palette)
    tokenizer.replace(drawn(lambda rngs: Autoencoder(CONFIG, 8, 8, rngs=rngs), 5))
    assert tokenizer.palette != before


@pytest.mark.parametrize(
    "other",
    [
        {"network": "cnn", "skip": False, "filters": 4, "multipliers": (1,)},
        {"quantizer": "rq"},
    ],
)
def test_nothing_is_known_without_a_linear_path_or_of_sums(other):
    assert made(dataclasses.replace(CONFIG, **other)).palette == {}
