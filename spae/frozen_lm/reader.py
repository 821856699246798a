"""Reads prompts: the caches and logits behind them, those of recent ones kept."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Float32

from spae.frozen_lm.chunks import BATCHES, CHUNKS, capacity_for, chunks
from spae.frozen_lm.config import LMConfig
from spae.frozen_lm.model import Cache, empty_cache
from spae.frozen_lm.prefixes import Prefix, Prefixes
from spae.frozen_lm.programs import Programs, place

_PREFIX_BYTES = 1 << 30  # of caches of recent prompts
_SHORT = 32  # tokens that several prompts may have to themselves to be read side by side


class Reader:
    """Of one model. Ids below 0 are the names of vectors that stand in the place of tokens (`spae.frozen_lm.soft`).

    Attributes:
        prefixes: what is kept.
        soft: the vectors of the call under way, by name.
    """

    def __init__(self, config: LMConfig, params: list[Array], run: Programs) -> None:
        self._config, self._params, self._run = config, params, run
        self.prefixes = Prefixes(_PREFIX_BYTES)
        self.soft: dict[int, Float32[np.ndarray, " d"]] = {}

    def copy(self, cache: Cache, capacity: int | None = None) -> Cache:
        batch, _, now, _ = cache[0][0].shape
        return place(empty_cache(self._config, batch, capacity or now), cache, 0)

    def prompt(self, ids: list[int]) -> Prefix:
        """The cache of these ids and the logits behind them; kept, so its cache must not be donated."""
        kept, start = self.prefixes.longest(ids)
        if kept is not None and start == len(ids) == len(kept.ids):
            return kept
        start = min(start, len(ids) - 1)  # the last is read in any case, for its logits
        capacity = capacity_for(len(ids) + 1)
        cache = empty_cache(self._config, 1, capacity) if kept is None else self.copy(kept.cache, capacity)
        for begin, end, size in chunks(start, len(ids), capacity):
            hidden_bnd, cache = self.tokens(ids[begin:end], begin, size, cache)
        last = np.array([end - begin - 1], np.int32)
        logits_v = np.asarray(self._run.logits_at(self._params, hidden_bnd, last)[0])
        prefix = Prefix(np.array(ids), cache, logits_v)
        self.prefixes.add(prefix)
        return prefix

    def prompts(self, prompts: Sequence[list[int]]) -> list[Prefix]:
        """As `prompt`, for each of these; those that are but for their last tokens in memory side by side."""
        found: dict[tuple[int, ...], Prefix] = {}
        near: dict[tuple[int, ...], tuple[int, Cache]] = {}  # how many tokens of the cache are theirs
        for ids in prompts:
            if tuple(ids) in found or tuple(ids) in near:
                continue
            kept, common = self.prefixes.longest(ids)
            start = min(common, len(ids) - 1)
            is_read = kept is not None and common == len(ids) == len(kept.ids)
            if kept is None or is_read or len(ids) - start > _SHORT or min(ids[start:]) < 0:
                found[tuple(ids)] = self.prompt(ids)
            else:
                near[tuple(ids)] = (start, kept.cache)
        if len(near) == 1:
            found |= {ids: self.prompt(list(ids)) for ids in near}
        elif near:
            found |= self._read_rests(near)
        return [found[tuple(ids)] for ids in prompts]

    def _read_rests(
        self, prompts: Mapping[tuple[int, ...], tuple[int, Cache]]
    ) -> dict[tuple[int, ...], Prefix]:
        """The prefixes of up to 16 prompts of whose tokens the first are in a cache already, read in one call; kept."""
        batch = next(size for size in BATCHES if size >= len(prompts))
        size = next(s for s in CHUNKS if s >= max(len(ids) - start for ids, (start, _) in prompts.items()))
        capacity = capacity_for(max(map(len, prompts)) + 1)
        cache = empty_cache(self._config, batch, capacity)
        ids_bn = np.zeros((batch, size), np.int32)
        begin_b, last_b = np.zeros(batch, np.int32), np.zeros(batch, np.int32)
        for row, (ids, (start, kept)) in enumerate(prompts.items()):
            cache = place(cache, kept, row)
            begin = min(start, capacity - size)
            ids_bn[row, : len(ids) - begin] = ids[begin:]
            begin_b[row], last_b[row] = begin, len(ids) - begin - 1
        positions_bn = begin_b[:, None] + np.arange(size, dtype=np.int32)
        hidden_bnd, cache = self._run.read(
            self._params, ids_bn, cache, begin_b, positions_bn, np.zeros_like(ids_bn)
        )
        logits_bv = np.asarray(self._run.logits_at(self._params, hidden_bnd, last_b))
        found: dict[tuple[int, ...], Prefix] = {}
        for row, ids in enumerate(prompts):
            own = jax.tree.map(lambda part: part[row : row + 1], cache)  # noqa: B023, called at once
            found[ids] = Prefix(np.array(ids), own, logits_bv[row].copy())  # a view would keep those of all
            self.prefixes.add(found[ids])
        return found

    def tokens(
        self, ids: Sequence[int], begin: int, size: int, cache: Cache
    ) -> tuple[Float[Array, "1 n d"], Cache]:
        """Reads the ids, padded to `size`, at the places from `begin` of a cache, which is used up."""
        padded = np.zeros((1, size), np.int32)
        padded[0, : len(ids)] = np.maximum(ids, 0)
        positions = np.arange(begin, begin + size, dtype=np.int32)[None]
        where = (np.array([begin], np.int32), positions, np.zeros_like(positions))
        soft = [place for place, id_ in enumerate(ids) if id_ < 0]
        if not soft:
            return self._run.read(self._params, padded, cache, *where)
        vectors = np.zeros((1, size, self._config.width), np.float32)
        vectors[0, soft] = [self.soft[ids[place]] for place in soft]
        is_soft = np.isin(np.arange(size), soft)[None]
        return self._run.read_soft(self._params, padded, vectors, is_soft, cache, *where)
