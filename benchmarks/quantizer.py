"""The quantizer as a whole: the words of the lower layers of a batch of latents, by streaming average."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.limits import work
from benchmarks.peer import Peer
from benchmarks.timing import Result, interleaved, rates, result, timed
from spae.quantize import QUANTIZERS, Meaning
from spae.tokenizer import Tokenizer


def quantize_words(
    tokenizer: Tokenizer, batches: Sequence[int], repeats: int, peer: Peer | None = None
) -> dict[str, Result]:
    """Images/s for every batch size. The peer: the same in PyTorch, and three residual layers of
    vector-quantize-pytorch over all places."""
    config, vocabulary = tokenizer.config, len(tokenizer.vocabulary)
    codebook_vc = tokenizer._codebooks["appearance"]
    shape = config.shape

    @jax.jit
    def ids(z_bhwc, codebook_vc):
        batch = len(z_bhwc)
        chosen = tuple(
            jnp.zeros((batch, len(shape.positions(layer + 1))), jnp.int32)
            for layer in range(config.meaning_layers)
        )
        meaning = Meaning((), jnp.zeros((vocabulary, 1)), chosen) if chosen else None
        quantizer = QUANTIZERS[config.quantizer]
        return quantizer(z_bhwc, codebook_vc, shape, meaning, config.fill, config.unit, config.apart).ids

    results: dict[str, Result] = {}
    for batch in batches:
        z_bhwc = (
            np.random.default_rng(0)
            .normal(size=(batch, *shape.grid, codebook_vc.shape[1]))
            .astype(np.float32)
        )
        calls: dict[str, Callable[[], Any]] = {
            "streaming average": partial(ids, jax.device_put(z_bhwc), codebook_vc)
        }
        own = {"dtype": "float32", **work(ids.trace(z_bhwc, codebook_vc))}
        first = timed(calls["streaming average"])
        if peer is not None:
            for compiled in (False, True):
                calls[f"PyTorch{' compiled' if compiled else ''}"] = partial(
                    peer.ask, call="quantize", batch=batch, compiled=compiled
                )
            calls["vector-quantize-pytorch"] = partial(peer.ask, call="residual", batch=batch)
        seconds = interleaved(calls, repeats)
        for name in calls:
            ours = name == "streaming average"
            facts = own if ours else {} if peer is None else peer.facts
            entry = result(seconds[name], first=first if ours else None, batch=batch, **facts)
            results[f"{name}, batch {batch}"] = rates(entry, batch, "images_per_s")
    return results
