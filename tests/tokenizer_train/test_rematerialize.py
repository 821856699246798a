"""Activations computed again instead of kept: the same losses and gradients, in less memory, for more operations."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spae.architecture import AutoencoderConfig
from spae.cnn import Encoder
from spae.layers.rematerialize import rematerialize
from spae.layers.transformer import Block
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config
from tokenizer_train.config_file import load_config
from tokenizer_train.dry_run import estimate
from tokenizer_train.networks.discriminator import Discriminator
from tokenizer_train.networks.resnet import ResNet
from tokenizer_train.processes.mesh import make_mesh
from tokenizer_train.state import Modules, build, create
from tokenizer_train.step import make_step

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CNN = AutoencoderConfig(image_size=16, pyramid=(4,), filters=8, blocks=1, multipliers=(1, 2), downsamplings=2)


class Sequence(nnx.Module):
    """Two transformer blocks, of which nobody sees the last position."""

    def __init__(self, rngs: nnx.Rngs):
        self.blocks = nnx.List([Block(8, 16, 2, rngs=rngs) for _ in range(2)])

    def __call__(self, images_bhwc):
        x_btc = jnp.tile(images_bhwc.reshape(images_bhwc.shape[0], -1, 3), (1, 1, 3))[:, :20, :8]
        for block in self.blocks:
            x_btc = block(x_btc, jnp.arange(20)[None] < 19)
        return x_btc


@pytest.mark.parametrize(
    ("make", "blocks"),
    [
        (lambda rngs: Encoder(CNN, 4, rngs=rngs), 3),
        (lambda rngs: Discriminator(32, 4, (2, 2), rngs=rngs), 2),
        (lambda rngs: ResNet((1, 2), 4, 5, rngs=rngs), 3),
        (Sequence, 2),
    ],
    ids=["cnn", "discriminator", "resnet", "transformer"],
)
def test_the_same_gradients_of_every_network(make, blocks) -> None:
    network = make(nnx.Rngs(0))
    size = 32 if isinstance(network, Discriminator) else 16
    images = jax.random.uniform(jax.random.key(1), (2, size, size, 3))

    def gradients(network):
        graph, params = nnx.split(network)

        def loss(params, images):
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(nnx.merge(graph, params)(images)))

        function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        return str(jax.make_jaxpr(function)(params, images)).count("remat"), function(params, images)

    without, wanted = gradients(network)
    rematerialize(network)
    inside, found = gradients(network)
    assert without == 0
    assert inside >= blocks
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_same_losses(tiny_config, vocabulary_folder) -> None:
    vocabulary, mesh = Vocabulary.load(vocabulary_folder), make_mesh(tiny_config.mesh, jax.devices()[:1])
    draw = np.random.default_rng(0)
    features = draw.normal(size=(len(vocabulary), 12)).astype(np.float32)
    batch = {
        "images": draw.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8),
        "features": features[:8],
    }

    arguments = vocabulary, features, np.zeros(len(vocabulary), np.float32)
    kept, state = create(tiny_config, *arguments, mesh)
    again = dataclasses.replace(tiny_config, run=dataclasses.replace(tiny_config.run, rematerialize=True))
    modules, _ = build(again, *arguments, None, None)

    def step(config: Config, modules: Modules) -> dict[str, float]:
        own = jax.tree.map(jnp.copy, state)  # the step takes the memory of the state it is given
        return {k: float(v) for k, v in make_step(config, modules, mesh)(own, batch)[1].items()}

    assert step(again, modules) == pytest.approx(step(tiny_config, kept), rel=1e-4, abs=1e-6)


def test_less_memory_for_more_operations_by_the_dry_run() -> None:
    base = load_config(CONFIGS / "vqgan128.py", "tiny")
    base = dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(
            base.tokenizer, image_size=32, multipliers=(1, 1, 2), downsamplings=3, blocks=3
        ),
        vocabulary=dataclasses.replace(base.vocabulary, codes=16),
        loss=dataclasses.replace(base.loss, adversarial=0.0, lecam=0.0),
    )
    kept, again = (
        estimate(
            dataclasses.replace(base, run=dataclasses.replace(base.run, rematerialize=choice)), 1, "h100"
        )
        for choice in (False, True)
    )
    assert again["memory"]["temporary"] < 0.6 * kept["memory"]["temporary"]
    assert 1.1 < again["flops"] / kept["flops"] < 1.4
    assert again["memory"]["arguments"] == kept["memory"]["arguments"]
