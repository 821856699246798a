"""Operations of a step against counts by hand; the table of devices; speed, with a clock that the test turns."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spae.nearest import CHUNK, log_sum_exp, nearest
from spae.vocabulary import Vocabulary
from tokenizer_train import speed
from tokenizer_train.flops import DEVICES, PEAKS, exact_flops, peak, step_flops
from tokenizer_train.processes.mesh import make_mesh, split
from tokenizer_train.speed import Speed, peak_memory
from tokenizer_train.state import create
from tokenizer_train.step import make_step


def count(function, *arguments) -> float:
    traced = jax.jit(function).trace(*arguments)
    return step_flops(traced, traced.lower())


def test_products_and_convolutions_by_hand() -> None:
    a, b = jnp.ones((5, 7)), jnp.ones((7, 11))
    assert count(lambda a, b: a @ b, a, b) == 2 * 5 * 7 * 11
    assert exact_flops(jax.jit(lambda a, b: a @ b).trace(a, b)) == 0
    for precision, exact in (("BF16_BF16_F32", 0), ("F32_F32_F32", 2 * 5 * 7 * 11)):
        product = jax.jit(lambda a, b, p=precision: jnp.matmul(a, b, precision=jax.lax.DotAlgorithmPreset[p]))
        assert exact_flops(product.trace(a, b)) == exact

    def convolution(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, k = jnp.ones((2, 10, 10, 3)), jnp.ones((3, 3, 3, 8))
    assert count(convolution, x, k) == 2 * 2 * 8 * 8 * 3 * 3 * 3 * 8


def test_loops_count_as_often_as_they_run() -> None:
    m = jnp.ones((16, 16))
    once = 2 * 16**3

    def power(m, n, unroll=1):
        return jax.lax.scan(lambda x, _: (x @ m, None), m, length=n, unroll=unroll)[0]

    for n in (1, 2, 9):
        assert count(lambda m, n=n: power(m, n), m) == pytest.approx(n * once, rel=0.02)

    def nested(m):
        return jax.lax.scan(lambda x, _: (power(x, 3), None), m, length=5)[0]

    assert count(nested, m) == pytest.approx(15 * once, rel=0.02)
    # A result that nobody reads is not computed, whatever the jaxpr says.
    unread = count(
        lambda m: jax.lax.scan(lambda c, _: ((c[0] @ m, c[1] @ m), None), (m, m), length=4)[0][0], m
    )
    assert unread == pytest.approx(4 * once, rel=0.02)


@pytest.mark.parametrize("words", [100, CHUNK, 5 * CHUNK - 7])
def test_walks_over_the_vocabulary(words: int) -> None:
    n, width = 64, 128
    z, e = jnp.ones((n, width)), jnp.ones((words, width))
    # The last chunk is moved back, not padded: words of it are compared twice.
    compared = CHUNK * math.ceil(words / CHUNK) if words > CHUNK else words
    product = 2 * n * compared * width
    assert count(nearest, z, e) == pytest.approx(product, rel=0.05)
    assert exact_flops(jax.jit(nearest).trace(z, e)) == product
    # Forward one product; backward the same again and the weighted sum of the words. The gradient of the frozen
    # codebook, a fourth one, is asked for by nobody.
    gradient = jax.grad(lambda z, e: jnp.sum(log_sum_exp(z, e, 1.0)))
    assert count(gradient, z, e) == pytest.approx(3 * product, rel=0.1)
    assert exact_flops(jax.jit(gradient).trace(z, e)) == 3 * product


def test_a_tiny_step_by_hand(tiny_config) -> None:
    """A 1x1-scale network with nothing but convolutions and one search, multiplied out."""
    config = dataclasses.replace(
        tiny_config,
        tokenizer=dataclasses.replace(
            tiny_config.tokenizer,
            image_size=32,
            pyramid=(4,),
            filters=16,
            multipliers=(1,),
            blocks=1,
            downsamplings=0,
            patch=8,
            block="residual",
            skip=False,
            codebook="frozen",
            latents=None,
            map_width=0,
            meaning_layers=0,
        ),
        run=dataclasses.replace(tiny_config.run, start="random"),
        loss=dataclasses.replace(
            tiny_config.loss, semantic=0.0, semantic_layers=0, prefix_dropout=0.0, hub_correction=False
        ),
    )
    vocabulary = Vocabulary.load(config.vocabulary.path)
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    modules, state = create(config, vocabulary, np.zeros((60, 0), np.float32), np.zeros(60, np.float32), mesh)
    step = make_step(config, modules, mesh)
    images = {"images": np.zeros((8, 32, 32, 3), np.uint8), "features": np.zeros((8, 0), np.float32)}
    traced = step.func.trace(state, split(images, mesh), **step.keywords)
    counted = step_flops(traced, traced.lower())

    def convolution(inputs: int, outputs: int, side: int, at: int = 4) -> int:
        # Products with the border of zeros are not counted: of 3 x 3 taps an edge position has 2 in its direction.
        taps = (3 * at - 2) ** 2 if side == 3 else at**2
        return 2 * 8 * taps * inputs * outputs

    patch = 3 * 8**2
    blocks = 2 * 2 * convolution(16, 16, 3)  # one block of the scale and one of the bottleneck, each side
    encoder = convolution(patch, 16, 3) + blocks + convolution(16, 4, 1)
    decoder = convolution(4, 16, 3) + blocks + convolution(16, patch, 3)
    search = 2 * 8 * 16 * 60 * 4
    # Backward twice the forward, but for the gradient of the images, which nobody asks for.
    expected = 3 * (encoder + decoder) - convolution(patch, 16, 3) + search
    # What is not a product (norms, activations, Adam, the losses) comes on top.
    assert expected < counted < 1.35 * expected
    # The compiler's own count, of what it made of that, agrees: there is one search in one chunk, so no loop.
    compiled = traced.lower().compile().cost_analysis()["flops"]
    assert counted == pytest.approx(compiled, rel=0.05)


def test_peaks() -> None:
    assert peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak("TPU v5 lite", "bfloat16") == 197e12
    assert peak("TPU v5", "bfloat16") == 459e12
    assert peak("cpu", "float32") is None
    assert set(DEVICES.values()) <= set(PEAKS)


def test_speed(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(speed, "peak", lambda kind, precision: 2e12)
    measured = Speed(32, "float32")
    measured.flops = 1e12
    with measured.waiting():
        now[0] += 1
    for _ in range(10):
        measured.stepped()
    now[0] += 4
    figures = measured.figures()
    memory = figures.pop("peak-GB")
    assert 0.05 < memory < 200
    assert memory == pytest.approx(peak_memory() / 1e9, rel=0.1)
    assert figures == pytest.approx(
        {
            "steps/s": 2.0,
            "images/s": 64.0,
            "waiting": 0.2,
            "TFLOP/s": 2.0,
            "mfu": 1 / jax.device_count(),
        }
    )
    measured.restart()
    measured.stepped()
    now[0] += 2
    assert measured.figures()["steps/s"] == 0.5
