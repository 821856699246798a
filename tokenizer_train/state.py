"""What training carries from step to step, and what it keeps fixed beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from spae.autoencoder import Autoencoder
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from tokenizer_train.config import Config, OptimizerConfig
from tokenizer_train.discriminator import Discriminator


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


@dataclass(frozen=True)
class Modules:
    """The static side: graph definitions, the optimiser, the perceptual distance and the constants."""

    autoencoder: nnx.GraphDef
    discriminator: nnx.GraphDef | None
    transform: optax.GradientTransformation
    discriminator_transform: optax.GradientTransformation
    perceptual: Callable[[Any, Array, Array], Array] | None  # (parameters, images, decoded) -> (B,)
    constants: Constants


def create(
    config: Config,
    vocabulary: Vocabulary,
    word_features_vf: Float[Array, "v f"],
    word_means_v: Float[Array, " v"],
) -> tuple[Modules, TrainState]:
    """Fresh networks and optimisers for a config, by `run.seed`.

    Args:
        config: the experiment.
        vocabulary: the words and their views.
        word_features_vf: unit text features (V, f) of the guidance, whose image features the batches carry; f
            is also the width of the trunk's features.
        word_means_v: (V,) subtracted from every image's scores (hub correction), zeros for none.
    """
    dtype = jnp.bfloat16 if config.run.precision == "bfloat16" else jnp.float32
    key = jax.random.key(config.run.seed)
    codebook_vc = jnp.asarray(vocabulary.codebook("appearance"))
    meaning_codebook_vd = jnp.asarray(vocabulary.codebook("meaning"))
    graph, params = _parameters(
        lambda rngs: Autoencoder(
            config.tokenizer,
            codebook_vc.shape[1],
            meaning_codebook_vd.shape[1],
            word_features_vf.shape[1],
            len(vocabulary),
            dtype=dtype,
            rngs=rngs,
        ),
        jax.random.fold_in(key, 0),
    )
    transform, discriminator_transform = _transform(config.optimizer), _transform(config.optimizer)

    discriminator_graph: nnx.GraphDef | None = None
    discriminator_params: Any = ()
    if config.loss.adversarial > 0:
        discriminator_graph, discriminator_params = _parameters(
            lambda rngs: Discriminator(
                config.tokenizer.image_size,
                config.tokenizer.filters,
                frames=config.tokenizer.frames,
                dtype=dtype,
                rngs=rngs,
            ),
            jax.random.fold_in(key, 1),
        )

    perceptual, perceptual_params = _perceptual(config)
    constants = Constants(
        codebook_vc,
        meaning_codebook_vd,
        jnp.asarray(word_features_vf),
        jnp.asarray(word_means_v),
        perceptual_params,
    )
    modules = Modules(graph, discriminator_graph, transform, discriminator_transform, perceptual, constants)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        optimizer=transform.init(params),
        discriminator=discriminator_params,
        discriminator_optimizer=discriminator_transform.init(discriminator_params),
        lecam=jnp.zeros(2, jnp.float32),
        key=jax.random.fold_in(key, 2),
    )
    return modules, state


def tokenizer(
    modules: Modules,
    state: TrainState,
    config: Config,
    vocabulary: Vocabulary,
    trunk: nnx.Module | None = None,
    ema: bool = True,
    like: Tokenizer | None = None,
) -> Tokenizer:
    """The tokenizer as it stands: the averaged weights, or with `ema=False` the last ones; and its trunk.

    With `like`, the one that this function made earlier, that one is brought up to date and returned: what it
    has compiled stays.
    """
    model = nnx.merge(modules.autoencoder, jax.tree.map(jnp.copy, state.ema if ema else state.params))
    if like is None:
        return Tokenizer(config.tokenizer, vocabulary, model, trunk)
    like.replace(model)
    return like


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


def _parameters(build: Callable[[nnx.Rngs], nnx.Module], key: Array) -> tuple[nnx.GraphDef, Any]:
    """Graph and fresh parameters, drawn in one compiled function instead of one for every array."""
    graph, _ = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param)
    return graph, jax.jit(lambda key: nnx.split(build(nnx.Rngs(key)), nnx.Param)[1])(key)


def _transform(config: OptimizerConfig) -> optax.GradientTransformation:
    adam = optax.adam(schedule(config), b1=config.betas[0], b2=config.betas[1])
    return (
        adam if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)
    )


def _perceptual(config: Config):
    """The perceptual distance as a pure function and its parameters; nothing where its weight is 0."""
    if config.loss.perceptual == 0 or config.loss.perceptual_network == "none":
        return None, ()
    from tokenizer_train.perceptual import load

    graph, params = nnx.split(load(config.loss.perceptual_network, config.loss.perceptual_weights))
    return (lambda params, a, b: nnx.merge(graph, params)(a, b)), params
