"""One training step: autoencoder and discriminator, from the same forward pass, jitted once."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from spae.architecture import AutoencoderConfig
from spae.frozen_lm.masked_lm import MaskedLM
from spae.guidance.scores import pools, scores
from spae.quantize import QUANTIZERS, first_shown, normalised
from tokenizer_train import losses
from tokenizer_train.config import Config
from tokenizer_train.networks import language_model
from tokenizer_train.processes.mesh import replicated, shardings
from tokenizer_train.state import Constants, Modules, TrainState
from tokenizer_train.training import Metrics


def make_step(config: Config, modules: Modules, mesh: Mesh) -> partial[tuple[TrainState, Metrics]]:
    """The jitted step: (state, batch) -> (state, metrics); the old state's memory is reused. It is a partial of the
    jitted function with the constants, so that whoever counts its cost can trace and lower it.

    The state lies, and comes back, as `mesh.shardings` says. Every device works on its own images with whole
    parameters, which are gathered array by array for the length of the step; updates are made where the parts lie.

    The batch: `images` (B, H, W, 3), or clips (B, T, H, W, 3), uint8 and `features` (B, f) float32, the guidance's
    image features, or with pursuit the meaning layers' words. Metrics are float32 scalars: the losses, `psnr` (dB, of
    what the decoder saw, before rounding) and `words/l`, the distinct words that layer l used in this batch.
    """
    autoencoder_loss = _autoencoder_loss(config, modules)
    if modules.discriminator is not None:
        discriminator_loss = _discriminator_loss(config, modules.discriminator)

    def in_parts(tree):
        return jax.lax.with_sharding_constraint(tree, shardings(tree, mesh))

    def gathered(tree):
        return jax.lax.with_sharding_constraint(tree, replicated(mesh))

    def step(state: TrainState, batch: dict, constants: Constants) -> tuple[TrainState, Metrics]:
        images_bhwc = batch["images"].astype(jnp.float32) / 255
        key = jax.random.fold_in(state.key, state.step)
        # Said outright: left to itself, XLA may cut the activations the way the parameters lie.
        whole = replace(state, params=gathered(state.params), discriminator=gathered(state.discriminator))
        (_, (metrics, decoded_bhwc)), gradient = jax.value_and_grad(autoencoder_loss, has_aux=True)(
            whole.params, whole, images_bhwc, batch["features"], constants, key
        )
        update, optimizer = modules.transform.update(in_parts(gradient), state.optimizer, state.params)
        params = optax.apply_updates(state.params, update)
        decay = average_decay(config, state.step)
        # In this form what is not trained stays as it is, to the last bit.
        ema = jax.tree.map(lambda old, new: new + decay * (old - new), state.ema, params)

        discriminator, discriminator_optimizer, lecam = (
            state.discriminator,
            state.discriminator_optimizer,
            state.lecam,
        )
        if modules.discriminator is not None:
            (_, (more, lecam)), gradient = jax.value_and_grad(discriminator_loss, has_aux=True)(
                whole.discriminator, images_bhwc, jax.lax.stop_gradient(decoded_bhwc), lecam
            )
            update, discriminator_optimizer = modules.discriminator_transform.update(
                in_parts(gradient), discriminator_optimizer, discriminator
            )
            discriminator = optax.apply_updates(discriminator, update)
            metrics |= more
        state = TrainState(
            state.step + 1, params, ema, optimizer, discriminator, discriminator_optimizer, lecam, state.key
        )
        return in_parts(state), gathered(metrics)

    return partial(jax.jit(step, donate_argnums=0), constants=modules.constants)


def average_decay(config: Config, step: Array) -> Array | float:
    """Of the averaged weights: `ema`, and less over the first steps, or a short run would ship what it began with.

    A run that begins with a bundle's weights begins with a good average.
    """
    if config.run.initial is not None:
        return config.optimizer.ema
    return jnp.minimum(config.optimizer.ema, (1 + step) / (10 + step))


def _autoencoder_loss(config: Config, modules: Modules):
    loss, shape = config.loss, config.tokenizer.shape
    meaning_layers, pursuit = config.tokenizer.meaning_layers, config.tokenizer.meaning == "pursuit"
    fill, apart = config.tokenizer.fill, config.tokenizer.apart
    decoder_alone = config.run.trains == "decoder"
    quantize = QUANTIZERS[config.tokenizer.quantizer]

    def compute(params, state: TrainState, images_bhwc, features_bf, constants: Constants, key):
        model = nnx.merge(modules.autoencoder, params)
        chosen_bk = features_bf.astype(jnp.int32) if pursuit else None
        z_bhwc, meaning = model.encode(images_bhwc, features_bf, constants.meaning_codebook_vd, chosen_bk)
        codebook_vc = model.codebook(constants.codebook_vc)
        words = quantize(z_bhwc, codebook_vc, shape, meaning, fill, config.tokenizer.unit, apart)
        searched_vc = normalised(codebook_vc) if config.tokenizer.unit else codebook_vc
        key_prefix, key_positions, key_masking = jax.random.split(key, 3)
        length_b = None
        if loss.prefix_dropout > 0:
            length_b = losses.draw_lengths(len(images_bhwc), len(shape), loss.prefix_dropout, key_prefix)
        seen_bhwc = losses.show_prefix(
            z_bhwc, words.averages, shape, length_b, meaning_layers + 1, fill, apart
        )
        if decoder_alone:
            seen_bhwc = jax.lax.stop_gradient(seen_bhwc)
        metrics = {}
        if modules.language_model is not None:
            language = nnx.merge(modules.language_model, constants.language_model)
            seen_bhwc, masked_bhw = language_model.mask(language, seen_bhwc, loss.masking, key_masking)
            seen_bhwc = language.encoder.grid(seen_bhwc)
            if loss.masked_lm > 0:
                metrics["masked_lm"] = _masked_lm(language, seen_bhwc, words.ids[-1], masked_bhw, constants)
        lengths = len(shape) if length_b is None else length_b
        decoded_bhwc = model.decode(seen_bhwc, words.ids, constants.meaning_codebook_vd, lengths)

        total, more = _picture_losses(config, modules, state, constants, images_bhwc, decoded_bhwc, length_b)
        metrics |= more
        metrics["commitment"] = losses.commitment(z_bhwc, words.averages, shape, meaning_layers + 1)
        if not decoder_alone:
            total += loss.commitment * metrics["commitment"]
        if loss.masked_lm > 0:
            total += loss.masked_lm * metrics["masked_lm"]
        metrics["appearance"] = total
        if loss.semantic > 0:
            # As in the paper this loss trains the encoder only.
            fixed_vc = jax.lax.stop_gradient(searched_vc)
            metrics["semantic"] = _semantic(
                config, words.queries, fixed_vc, features_bf, constants, key_positions
            )
            weight = losses.dynamic_weight(total, metrics["semantic"]) if loss.dynamic_weight else 1.0
            total += loss.semantic * weight * metrics["semantic"]
        if config.tokenizer.codebook != "frozen" and not decoder_alone:
            metrics["codebook"] = losses.codebook(words.queries, words.ids, searched_vc, meaning_layers + 1)
            total += loss.codebook * metrics["codebook"]
        metrics["loss"] = total
        metrics["psnr"] = -10 * jnp.log10(metrics["reconstruction"])
        for layer, ids in enumerate(words.ids, start=1):
            used_v = jnp.zeros(constants.codebook_vc.shape[0], jnp.float32).at[ids].set(1.0)
            metrics[f"words/{layer}"] = jnp.sum(used_v)
        return total, (metrics, decoded_bhwc)

    return compute


def _picture_losses(
    config: Config,
    modules: Modules,
    state: TrainState,
    constants: Constants,
    images_bhwc,
    decoded_bhwc,
    length_b,
) -> tuple[Array, Metrics]:
    """The weighted sum of what compares pictures with images: squared error, perceptual distance, discriminator.

    `length_b`: layers that each picture shows, None for all. Pictures of words of meaning alone, and those whose words
    leave places without one, have no part in the perceptual distance, which would make textures of what nothing says.
    """
    loss = config.loss
    metrics = {"reconstruction": losses.reconstruction(images_bhwc, decoded_bhwc)}
    total = loss.reconstruction * metrics["reconstruction"]
    if modules.perceptual is not None:
        # Of clips, every frame is an image to the perceptual network.
        frames = [x.reshape(-1, *x.shape[-3:]) for x in (images_bhwc, decoded_bhwc)]
        distance_n = modules.perceptual(constants.perceptual, *frames)
        distance_b = distance_n.reshape(len(images_bhwc), -1).mean(axis=1)
        if length_b is not None:
            distance_b = jnp.where(length_b >= _without_gaps(config.tokenizer), distance_b, 0.0)
        metrics["perceptual"] = jnp.mean(distance_b)
        total += loss.perceptual * metrics["perceptual"]
    if modules.discriminator is not None:
        logit_b = nnx.merge(modules.discriminator, state.discriminator)(decoded_bhwc)
        metrics["adversarial"] = losses.generator_adversarial(logit_b)
        active = state.step >= loss.adversarial_start
        total += jnp.where(active, loss.adversarial, 0.0) * metrics["adversarial"]
    return total, metrics


def _without_gaps(tokenizer: AutoencoderConfig) -> int:
    """The fewest layers of which a picture shows a word at every place, and not words of meaning alone."""
    shape, apart = tokenizer.shape, tokenizer.apart
    for layers in range(tokenizer.meaning_layers + 1, len(shape)):
        if shape.coverage(layers, first_shown(layers, apart)).all():
            return layers
    return len(shape)


def _masked_lm(language: MaskedLM, states_bhwc, ids_bhw, masked_bhw, constants: Constants) -> Array:
    """Cross entropy of the masked words, by the frozen language model."""
    batch, width = states_bhwc.shape[0], states_bhwc.shape[-1]
    logits_bnv = language.logits(states_bhwc.reshape(batch, -1, width))
    token_ids_bn = constants.token_ids_v[ids_bhw.reshape(batch, -1)]
    return losses.masked_lm(logits_bnv, token_ids_bn, masked_bhw.reshape(batch, -1))


def _semantic(config: Config, queries, searched_vc, features_bf, constants: Constants, key) -> Array:
    """The mean over the first D' layers of each layer's semantic loss, in the view that it searches."""
    loss, shape = config.loss, config.tokenizer.shape
    score_bv = scores(features_bf, constants.word_features_vf, constants.word_means_v)
    pool_lbv = pools(score_bv, loss.thresholds[: loss.semantic_layers])
    total = jnp.zeros((), jnp.float32)
    for i, pool_bv in enumerate(pool_lbv):
        query_bnc, pool_bnv = queries[i], pool_bv[:, None]
        count = query_bnc.shape[1]
        if loss.deal_pools:
            pool_bnv = losses.deal(score_bv, pool_bv, shape.tokens(i + 1) - count, count)
        if loss.semantic_positions is not None:
            # An unbiased estimate of the mean over positions, for a fraction of the step's largest product.
            drawn_n = jax.random.permutation(jax.random.fold_in(key, i), count)[: loss.semantic_positions]
            query_bnc = query_bnc[:, drawn_n]
            pool_bnv = pool_bnv[:, drawn_n] if loss.deal_pools else pool_bnv
        view = constants.meaning_codebook_vd if i < config.tokenizer.meaning_layers else searched_vc
        total += losses.semantic(query_bnc, view, pool_bnv, loss.temperature)
    return total / loss.semantic_layers


def _discriminator_loss(config: Config, graph: nnx.GraphDef):
    def compute(params, images_bhwc, decoded_bhwc, lecam_2):
        discriminator = nnx.merge(graph, params)
        real_b, fake_b = discriminator(images_bhwc), discriminator(decoded_bhwc)
        metrics = {"discriminator": losses.discriminator_adversarial(real_b, fake_b)}
        total = metrics["discriminator"]
        if config.loss.lecam > 0:
            metrics["lecam"], lecam_2 = losses.lecam(real_b, fake_b, lecam_2)
            total += config.loss.lecam * metrics["lecam"]
        if config.loss.r1 > 0:
            metrics["r1"] = losses.r1(discriminator, images_bhwc)
            total += config.loss.r1 * metrics["r1"]
        return total, (metrics, lecam_2)

    return compute
