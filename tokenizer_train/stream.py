"""Batches for training: an endless, shuffled, exactly resumable stream of records.

Grain reads with threads: on small machines they beat worker processes, and decoding releases the GIL.
The order, whatever is drawn for a record and therefore the batches are a function of the seed and of how many batches
came before; that count is the whole state of the stream, on however many hosts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from tokenizer_train.config import FeedConfig

Record = dict[str, np.ndarray]
Batch = dict[str, np.ndarray]  # this process's rows of a global batch, by name, under one another


class Records(ABC):
    """Records as Grain wants them: random access, to what is not read yet."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple["Records", int]:
        return self, int(index)

    @abstractmethod
    def read(self, index: int, generator: np.random.Generator) -> Record:
        """The record, with arrays of the same shapes as every other; what is random in it the generator draws.

        Raises:
            InputError: it cannot be read.
        """


class _Share(grain.MapDataset):
    """This process's rows of every global batch, one after the other; the parent knows nothing of processes."""

    def __init__(
        self, parent: grain.MapDataset, rows: Int[np.ndarray, " n"], batch_size: int, first: int
    ) -> None:
        super().__init__(parent)
        self._rows = [int(row) for row in rows]
        self._batch_size, self._first = batch_size, first

    def __len__(self) -> int:
        return len(self._parent) // self._batch_size * len(self._rows) - self._first * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        batch, place = divmod(int(index), len(self._rows))
        return self._parent[(self._first + batch) * self._batch_size + self._rows[place]]


def _read(
    place: tuple[Records, int],
    generator: np.random.Generator,
    change: Callable[[Record, np.random.Generator], Record] | None,
) -> Record:
    records, index = place
    record = records.read(index, generator)
    return record if change is None else change(record, generator)


class Stream(Iterator[Batch]):
    """The endless stream of this process's rows of the global batches.

    The global stream does not know of processes: every record comes once before any comes again, in an order of its own
    each time; several sets of records are mixed by their weights, evenly and always in the same order; what is drawn
    for a record is drawn by the position in the stream. Each process reads its own rows of every global batch and no
    others.

    Args:
        records: each set with its weight; none is empty.
        config: global batch size, threads.
        seed: of the order and of all that is drawn.
        rows: this process's rows of a global batch, see `tokenizer_train.processes.mesh.local_rows`.
        change: what is done to a record when it is read.
    """

    def __init__(
        self,
        records: Sequence[tuple[Records, float]],
        config: FeedConfig,
        seed: int,
        rows: Int[np.ndarray, " n"],
        change: Callable[[Record, np.random.Generator], Record] | None = None,
    ) -> None:
        self._config, self._rows, self._done = config, rows, 0
        shuffled = []
        for number, (some, _) in enumerate(records):
            source = grain.MapDataset.source(some)
            shuffled.append(source.seed((seed + number) % 2**32).shuffle().repeat())
        stream = shuffled[0]
        if len(shuffled) > 1:
            stream = grain.MapDataset.mix(shuffled, weights=[weight for _, weight in records]).seed(seed)
        self._records = stream.random_map(partial(_read, change=change))
        self._start()

    def _start(self) -> None:
        """Read from the first batch that was not handed out."""
        config = self._config
        share = _Share(self._records, self._rows, config.batch_size, self._done)
        options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.buffer)
        self._stream = iter(share.to_iter_dataset(options).batch(len(self._rows), drop_remainder=True))

    def __next__(self) -> Batch:
        batch = next(self._stream)
        self._done += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """How many global batches were handed out: the same in every process, whatever their number."""
        return {"batches": self._done}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue after the batch at which `get_state` was called, there or in a run of other processes."""
        self._done = state["batches"]
        self._start()
