"""What training carries from step to step, and what it keeps fixed beside it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from spae.autoencoder import Autoencoder
from spae.frozen_lm.masked_lm import MaskedLM
from spae.layers.rematerialize import rematerialize
from spae.pursuit import Pursuit
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config, OptimizerConfig
from tokenizer_train.networks import language_model
from tokenizer_train.networks.discriminator import Discriminator
from tokenizer_train.processes.mesh import replicate, shardings, to_host
from tokenizer_train.start import Tensors, begin

Network = TypeVar("Network", bound=nnx.Module)
Distance = Callable[[Any, Array, Array], Array]  # (parameters, images, decoded) -> (B,)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that changes, as one pytree: one checkpoint item."""

    step: Array  # () int32, steps done
    params: Any  # of the autoencoder
    ema: Any  # their moving average: what is evaluated and exported
    optimizer: Any
    discriminator: Any  # its parameters; an empty tuple without adversarial loss
    discriminator_optimizer: Any
    lecam: Float[Array, "2"]  # moving averages of the discriminator's mean logits: real, fake
    key: Array  # of the run; every draw folds the step into it


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constants:
    """Arrays that the step reads and never changes; arguments of the jitted step, not literals in its code."""

    codebook_vc: Float[Array, "v c"]  # appearance view
    meaning_codebook_vd: Float[Array, "v d"]  # meaning view
    word_features_vf: Float[Array, "v f"]  # guidance's text features of the words; (v, 0) if it is not used
    word_means_v: Float[Array, " v"]  # each word's mean score over the training images, or zeros
    perceptual: Any  # parameters of the perceptual network; an empty tuple without one
    language_model: Any  # parameters of the frozen masked language model; an empty tuple without one
    token_ids_v: Int[Array, " v"]  # each word's row in that model's table


@dataclass(frozen=True)
class Modules:
    """The static side: graph definitions, the optimiser, the perceptual distance and the constants."""

    autoencoder: nnx.GraphDef
    discriminator: nnx.GraphDef | None
    transform: optax.GradientTransformation
    discriminator_transform: optax.GradientTransformation
    perceptual: Distance | None
    language_model: nnx.GraphDef | None
    constants: Constants


def create(
    config: Config,
    vocabulary: Vocabulary,
    word_features_vf: Float[np.ndarray, "v f"],
    word_means_v: Float[np.ndarray, " v"],
    mesh: Mesh,
    start: Tensors | None = None,
) -> tuple[Modules, TrainState]:
    """Fresh networks and optimisers for a config, by `run.seed`, each array made where it will lie.

    Args:
        config: the experiment.
        vocabulary: the words and their views.
        word_features_vf: unit text features (V, f) of the guidance, whose image features the batches carry; f
            is also the width of the trunk's features.
        word_means_v: (V,) subtracted from every image's scores (hub correction), zeros for none.
        mesh: the devices; constants are replicated, the state lies as `mesh.shardings` says.
        start: of `tokenizer_train.start`, where the config begins from principal components.
    """
    frozen = perceptual_network(config), language_model.load(config, vocabulary)
    modules, fresh = build(config, vocabulary, word_features_vf, word_means_v, *frozen, start)
    modules = replace(modules, constants=replicate(modules.constants, mesh))
    key = jax.random.key(config.run.seed)
    # Compiled as a whole: no device ever holds more than its part, and random bits do not depend on the parts.
    state = jax.jit(fresh, out_shardings=shardings(jax.eval_shape(fresh, key), mesh))(key)
    return modules, state


def build(
    config: Config,
    vocabulary: Vocabulary,
    word_features_vf: Float[np.ndarray, "v f"],
    word_means_v: Float[np.ndarray, " v"],
    perceptual: nnx.Module | None,
    language: MaskedLM | None,
    start: Tensors | None = None,
) -> tuple[Modules, Callable[[Array], TrainState]]:
    """The static side, its constants still on the host, and the function from a key to a fresh state.

    Nothing is put on a device: `jax.eval_shape` of the function tells how large a state will be. Nor are values
    looked at: of the arguments, which are those of `create` and the frozen networks, the shapes are enough.
    """
    codebook_vc, meaning_codebook_vd = vocabulary.codebook("appearance"), vocabulary.codebook("meaning")
    autoencoder = partial(_autoencoder, config, vocabulary, word_features_vf.shape[1])
    discriminator = partial(_discriminator, config)
    adversarial = config.loss.adversarial > 0
    optimizer, discriminator_optimizer = transform(config.optimizer), transform(config.optimizer)

    @jax.jit  # building networks takes seconds: for their graphs and for the state it is traced once
    def networks(key: Array) -> tuple[Any, Any]:
        own = _split(autoencoder, jax.random.fold_in(key, 0))
        return own, _split(discriminator, jax.random.fold_in(key, 1)) if adversarial else (None, ())

    def fresh(key: Array) -> TrainState:
        (_, params), (_, critic) = networks(key)
        if start is not None:
            params = begin(params, start)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            optimizer=optimizer.init(params),
            discriminator=critic,
            discriminator_optimizer=discriminator_optimizer.init(critic),
            lecam=jnp.zeros(2, jnp.float32),
            key=jax.random.fold_in(key, 2),
        )

    distance, perceptual_params = _distance(config, perceptual)
    language_graph, language_params = (
        nnx.split(_kept(config, language)) if language is not None else (None, ())
    )
    (graph, _), (discriminator_graph, _) = jax.eval_shape(networks, jax.eval_shape(jax.random.key, 0))
    # NumPy still: `replicate` puts them on the devices.
    host: list[Any] = [codebook_vc, meaning_codebook_vd, word_features_vf, word_means_v, perceptual_params]
    host += [language_params, vocabulary.token_ids]
    modules = Modules(
        graph,
        discriminator_graph,
        optimizer,
        discriminator_optimizer,
        distance,
        language_graph,
        Constants(*host),
    )
    return modules, fresh


def _autoencoder(config: Config, vocabulary: Vocabulary, features: int, rngs: nnx.Rngs) -> Autoencoder:
    network = Autoencoder(
        config.tokenizer,
        vocabulary.codebook("appearance").shape[1],
        vocabulary.codebook("meaning").shape[1],
        features,
        len(vocabulary),
        dtype=_dtype(config),
        rngs=rngs,
    )
    return _kept(config, network)


def _discriminator(config: Config, rngs: nnx.Rngs) -> Discriminator:
    own = config.tokenizer
    network = Discriminator(own.image_size, own.filters, frames=own.frames, dtype=_dtype(config), rngs=rngs)
    return _kept(config, network)


def _distance(config: Config, network: nnx.Module | None) -> tuple[Distance | None, Any]:
    """The perceptual distance as a function of its parameters, and these."""
    if network is None:
        return None, ()
    graph, params = nnx.split(_kept(config, network))
    return lambda params, images, decoded: nnx.merge(graph, params)(images, decoded), params


def _dtype(config: Config) -> Any:
    return jnp.bfloat16 if config.run.precision == "bfloat16" else jnp.float32


def _kept(config: Config, network: Network) -> Network:
    """The network, which keeps less for the gradient if the config says so."""
    if config.run.rematerialize:
        rematerialize(network)
    return network


def tokenizer(
    modules: Modules,
    state: TrainState,
    config: Config,
    vocabulary: Vocabulary,
    trunk: nnx.Module | None,
    mesh: Mesh,
    ema: bool = True,
    like: Tokenizer | None = None,
    pursuit: Pursuit | None = None,
) -> Tokenizer:
    """The tokenizer as it stands, on this process's first device: the averaged weights, or with `ema=False` the
    last ones; its trunk, and its pursuit. All processes must call this together.

    With `like`, the one that this function made earlier, that one is brought up to date and returned: what it
    has compiled stays.
    """
    params = jax.tree.map(jnp.asarray, to_host(state.ema if ema else state.params, mesh))
    model = nnx.merge(modules.autoencoder, params)
    if like is not None:
        like.replace(model)
        return like
    language = None
    if modules.language_model is not None:
        frozen = jax.tree.map(jnp.asarray, to_host(modules.constants.language_model, mesh))
        language = nnx.merge(modules.language_model, frozen).encoder
    return Tokenizer(config.tokenizer, vocabulary, model, trunk, language_model=language, pursuit=pursuit)


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Step -> learning rate: linear warm-up, then the decay that the config names.

    rsqrt: peak * sqrt(warm-up / step), at the end linear to 0 over the cool-down. cosine: to 0 at the last step.
    """
    peak, warmup, steps = config.learning_rate, config.warmup_steps, config.steps

    def rate(step):
        step = jnp.asarray(step, jnp.float32) + 1
        if config.decay == "rsqrt":
            value = jnp.sqrt(max(warmup, 1) / jnp.maximum(step, max(warmup, 1)))
            if config.cooldown_steps:
                value *= jnp.clip((steps - step + 1) / config.cooldown_steps, 0, 1)
        elif config.decay == "cosine":
            done = jnp.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
            value = 0.5 * (1 + jnp.cos(jnp.pi * done))
        else:
            value = jnp.ones_like(step)
        return peak * value * (jnp.minimum(step / warmup, 1) if warmup else 1)

    return rate


def _split(build: Callable[[nnx.Rngs], nnx.Module], key: Array) -> tuple[nnx.GraphDef, Any]:
    """The graph and the parameters of a new network."""
    return nnx.split(build(nnx.Rngs(key)), nnx.Param)


def transform(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam as the config has it, of gradients that are clipped if it says so: of the same state either way, so that a
    run can go on with it."""
    adam = optax.adamw(
        schedule(config),
        b1=config.betas[0],
        b2=config.betas[1],
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    if config.clip_norm is None:
        return adam
    clip = optax.clip_by_global_norm(config.clip_norm)

    def update(gradients, state, params=None):
        clipped, _ = clip.update(gradients, clip.init(params))
        return adam.update(clipped, state, params)

    return optax.GradientTransformation(adam.init, update)


def perceptual_network(config: Config) -> nnx.Module | None:
    """The perceptual distance with its weights; None where its weight in the loss is 0."""
    if config.loss.perceptual == 0 or config.loss.perceptual_network == "none":
        return None
    from tokenizer_train.networks.perceptual import load

    return load(config.loss.perceptual_network, config.loss.perceptual_weights)
