"""The vision transformer: against slow NumPy, its size, its configuration; in a tokenizer; search by direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn
from flax import nnx
from scipy.special import erf

from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import InputError
from spae.tokenizer import Tokenizer
from spae.vit import ViTDecoder, ViTEncoder
from spae.vocabulary import View, Vocabulary

TINY = {
    "image_size": 8,
    "pyramid": (4,),
    "network": "vit",
    "heads": 2,
    "filters": 8,
    "multipliers": (1,),
    "blocks": 2,
    "downsamplings": 0,
    "patch": 2,
}


@nnx.jit
def called(module: nnx.Module, *inputs):
    """The module's output, compiled as a whole."""
    return module(*inputs)


def norm(module, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + module.epsilon)
    return x * np.asarray(module.scale[...]) + np.asarray(module.bias[...])


def linear(module, x):
    return x @ np.asarray(module.kernel[...], np.float64) + np.asarray(module.bias[...])


def slow_body(body, x_tc, heads):
    """One image's tokens, head by head, in float64."""
    x_tc = x_tc + np.asarray(body.positions[...])
    for block in body.blocks:
        y = norm(block.norm1, x_tc)
        query, key, value = (linear(layer, y) for layer in (block.query, block.key, block.value))
        parts = []
        for part in np.split(np.arange(x_tc.shape[1]), heads):
            score = query[:, part] @ key[:, part].T / np.sqrt(len(part))
            weight = np.exp(score - score.max(1, keepdims=True))
            parts.append(weight / weight.sum(1, keepdims=True) @ value[:, part])
        x_tc = x_tc + linear(block.out, np.concatenate(parts, 1))
        y = linear(block.up, norm(block.norm2, x_tc))
        x_tc = x_tc + linear(block.down, y * (1 + erf(y / np.sqrt(2))) / 2)
    return norm(body.norm, x_tc)


def test_encoder_and_decoder_are_the_slow_ones():
    encoder = drawn(lambda rngs: ViTEncoder(3, 2, 8, 2, 4, 5, rngs=rngs))
    image = np.random.default_rng(0).random((6, 6, 3)).astype(np.float32)
    kernel = np.asarray(encoder.patches.kernel[...], np.float64)
    patches = np.stack([image[y : y + 2, x : x + 2] for y in (0, 2, 4) for x in (0, 2, 4)])
    tokens = np.einsum("nhwc,hwcd->nd", 2 * patches - 1, kernel) + np.asarray(encoder.patches.bias[...])
    hidden = slow_body(encoder.body, tokens, 4)
    z, pooled = called(encoder, image[None])
    np.testing.assert_allclose(z[0].reshape(9, 5), linear(encoder.head, hidden), atol=1e-5)
    np.testing.assert_allclose(pooled[0], hidden.mean(0), atol=1e-5)

    decoder = drawn(lambda rngs: ViTDecoder(3, 2, 8, 2, 4, 5, rngs=rngs), 1)
    hidden = slow_body(decoder.body, linear(decoder.stem, np.asarray(z[0]).reshape(9, 5)), 4)
    # Flax's transposed convolution does not turn its kernel round: pixel (y, x) of a patch reads kernel [1-y, 1-x].
    kernel = np.asarray(decoder.pixels.kernel[...], np.float64)
    pixels = np.einsum("nc,hwcd->nhwd", hidden, kernel[::-1, ::-1])
    decoded = np.zeros((6, 6, 3))
    for n, patch in enumerate(pixels):
        decoded[n // 3 * 2 : n // 3 * 2 + 2, n % 3 * 2 : n % 3 * 2 + 2] = patch
    np.testing.assert_allclose(called(decoder, z)[0], 0.5 * decoded + 0.5, atol=1e-5)


def test_base_has_the_size_of_vit_b():
    config = AutoencoderConfig(
        **{
            **TINY,
            "image_size": 256,
            "pyramid": (16,),
            "heads": 12,
            "filters": 768,
            "blocks": 12,
            "patch": 16,
        }
    )
    model = nnx.eval_shape(lambda: Autoencoder(config, 768, 768, rngs=nnx.Rngs(0)))
    sizes = [
        sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(part, nnx.Param)))
        for part in (model.encoder, model.decoder)
    ]
    # ViT-B/16 without class token and classifier at 256 px: 85.8M; and a projection of 768 x 768.
    assert [round(size / 1e6, 1) for size in sizes] == [86.4, 86.4]


def test_bfloat16_computes_nearly_the_same():
    image = np.random.default_rng(0).random((1, 8, 8, 3)).astype(np.float32)
    both = [
        drawn(lambda rngs, dtype=dtype: Autoencoder(AutoencoderConfig(**TINY), 6, 6, dtype=dtype, rngs=rngs))
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    (exact, _), (rounded, _) = (called(model.encoder, image) for model in both)
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.1)
    assert not np.array_equal(rounded, exact)
    assert called(both[1].decoder, exact).dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multipliers": (1, 2)}, "wanted multipliers"),
        ({"downsamplings": 1, "pyramid": (2,)}, "wanted downsamplings 0"),
        ({"skip": True}, "wanted skip False"),
        ({"heads": 3}, "heads must divide filters, got 3 and 8"),
        ({"network": "mlp"}, "network is one of cnn, vit, linear"),
    ],
)
def test_a_vit_that_does_not_fit_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        AutoencoderConfig(**{**TINY, **change})


def test_a_tokenizer_of_vits_that_searches_by_direction(tmp_path):
    config = AutoencoderConfig(**TINY, unit=True)
    rng = np.random.default_rng(0)
    # Lengths that differ by a factor of ten, which a search by distance would follow.
    embeddings = (rng.normal(size=(30, 6)) * rng.uniform(0.2, 2, (30, 1))).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.raw()}
    words = tuple(f"{a}{b}" for a in "abcde" for b in "klmnop")
    model = drawn(lambda rngs: Autoencoder(config, 6, 6, rngs=rngs))
    tokenizer = Tokenizer(config, Vocabulary(words, np.arange(30), embeddings, views, {}), model)
    image = rng.integers(0, 256, (8, 8, 3), np.uint8)
    z_hwc = np.asarray(called(model.encoder, image[None] / np.float32(255))[0][0], np.float64)
    cosine = z_hwc @ (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).T
    ranking = np.argsort(-cosine, axis=-1)

    tokenizer.save(tmp_path / "bundle")
    loaded = Tokenizer.load(tmp_path / "bundle")
    pyramid, rivals = loaded.rivals(image, 3)
    np.testing.assert_array_equal(pyramid.ids[0], ranking[..., 0])
    np.testing.assert_array_equal(rivals[0], ranking[..., 1:4])
    assert tokenizer.encode(image) == pyramid
    # The decoder sees the embeddings as they are.
    decoded = np.asarray(called(model.decoder, embeddings[pyramid.ids[0]][None]))[0]
    wanted = np.clip(np.rint(decoded * 255), 0, 255)
    assert np.abs(loaded.decode(pyramid) - wanted).max() <= 1
