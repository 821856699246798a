"""The words that would have been chosen if the chosen ones were not in the vocabulary; see `Tokenizer.rivals`."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from spae.architecture import AutoencoderConfig
from spae.compiled import Compiled
from spae.errors import InputError
from spae.pursuit import Pursuit
from spae.quantize import Quantized


def check_count(count: int, config: AutoencoderConfig, words: int, pursuit: Pursuit | None) -> None:
    """That there are so many rivals of every word; `words`: of the vocabulary.

    Raises:
        InputError: not 1 .. as many as every place has.
    """
    most = words - 1
    if config.meaning == "ranked":
        # The last word of a ranking has fewer words behind it.
        most = words - config.shape.tokens(config.meaning_layers)
    elif pursuit is not None:
        most = pursuit.kinds - 1
    if not 1 <= count <= most:
        raise InputError(f"wanted 1 to {most} rivals of each word, got {count}")


def find_rivals(
    found: Quantized,
    seen_bhwc: UInt8[np.ndarray, "1 *t s s 3"],
    count: int,
    codebooks: Mapping[str, Float[Array, "v c"]],
    compiled: Compiled,
) -> tuple[Int[np.ndarray, "*grid count"], ...]:
    """Of one image, per layer int32 (*grid, count) ids, the nearest first, never the chosen one.

    Args:
        found: what encoding it gave.
        seen_bhwc: the square that was looked at.
        count: rivals of each place, see `check_count`.
    """
    config = compiled.config
    meant = config.meaning_layers
    rivals_nk = []
    if meant and config.meaning == "pursuit":
        rivals_nk.append(np.asarray(compiled.next_words(seen_bhwc, count))[0])
    elif meant and config.meaning == "ranked":
        query_nc = jnp.concatenate([query[0] for query in found.queries[:meant]])
        few = np.asarray(compiled.nearest_few(query_nc[:1], codebooks["meaning"], len(query_nc) + count))[0]
        # The next of the ranking behind each place's word.
        rivals_nk.append(few[np.add.outer(np.arange(len(query_nc)), 1 + np.arange(count))])
    elif meant:
        rivals_nk.append(_next_nearest(found, slice(meant), codebooks["meaning"], count, compiled, False))
    if meant < len(found.ids):
        table = codebooks["appearance"]
        rivals_nk.append(_next_nearest(found, slice(meant, None), table, count, compiled, config.unit))
    parts = np.split(np.concatenate(rivals_nk), config.shape.sizes[:-1])
    return tuple(part.reshape(*grid, count) for part, grid in zip(parts, config.shape.layers, strict=True))


def _next_nearest(
    found: Quantized,
    layers: slice,
    codebook_vc: Float[Array, "v c"],
    count: int,
    compiled: Compiled,
    unit: bool,
) -> Int[np.ndarray, "n count"]:
    """The words next nearest to what each place of these layers was searched with."""
    query_nc = jnp.concatenate([query[0] for query in found.queries[layers]])
    few_nm = np.asarray(compiled.nearest_few(query_nc, codebook_vc, count + 1, unit))
    chosen_n = np.concatenate([np.asarray(ids).ravel() for ids in found.ids[layers]])
    others_nm = few_nm != chosen_n[:, None]
    # A chosen word that is equally near as the last of the few may have been pushed out of them.
    others_nm[others_nm.all(1), -1] = False
    return few_nm[others_nm].reshape(-1, count)
