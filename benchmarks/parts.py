"""What encoding and decoding are made of, each program alone, and of both programs of encoding the network alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.limits import work
from benchmarks.timing import Result, interleaved, rates, result, timed
from spae.images import to_float
from spae.tokenizer import Tokenizer


def parts(tokenizer: Tokenizer, batches: Sequence[int], repeats: int) -> dict[str, Result]:
    """Images/s of every part for every batch size, on random images that already lie on the device."""
    results: dict[str, Result] = {}
    for batch in batches:
        made = programs(tokenizer, batch)
        calls = {name: partial(program, *arguments) for name, (program, arguments) in made.items()}
        first = {name: timed(call) for name, call in calls.items()}
        seconds = interleaved(calls, repeats)
        for name, (program, arguments) in made.items():
            facts = {"dtype": "float32", "batch": batch, **work(program.trace(*arguments))}
            entry = result(seconds[name], first=first[name], **facts)
            results[f"{name}, batch {batch}"] = rates(entry, batch, "images_per_s")
    return results


def programs(tokenizer: Tokenizer, batch: int) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Name -> a jitted function and its arguments, of a tokenizer of images.

    "look": the frozen trunk, and the words of its regions; "trunk": the trunk alone. "words": encoder and quantizer;
    "encoder": the encoder alone. "decoder".
    """
    generator = np.random.default_rng(0)
    config, compiled, graph = tokenizer.config, tokenizer._compiled, tokenizer._graph
    params, codebooks = tokenizer.parameters, tokenizer._codebooks

    def images(side: int) -> jax.Array:
        return jax.device_put(generator.integers(0, 256, (batch, side, side, 3), dtype=np.uint8))

    seen, small = images(tokenizer.sight), images(tokenizer.image_size)
    made: dict[str, tuple[Any, tuple[Any, ...]]] = {}
    looked = None
    if config.trunk != "none":
        trunk_graph, trunk_state = nnx.split(tokenizer.trunk)
        trunk = jax.jit(lambda state, x: nnx.merge(trunk_graph, state)(to_float(x)))
        looked = compiled.look(seen)
        made = {"look": (compiled._look, (compiled._frozen[1], seen)), "trunk": (trunk, (trunk_state, seen))}
    encoder = jax.jit(lambda params, x: nnx.merge(graph, params).encoder(to_float(x)))
    grids = [np.zeros((batch, *layer), np.int32) for layer in config.shape.layers]
    attended = tuple(grids[: config.meaning_layers]) if config.cross_attention else ()
    averages = compiled._average(tuple(grids), codebooks["appearance"])
    return made | {
        "words": (compiled._encode, (params, looked, codebooks, small)),
        "encoder": (encoder, (params, small)),
        "decoder": (compiled._decode, (params, averages, attended, codebooks["meaning"], len(grids))),
    }
