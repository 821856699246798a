"""One part of a job: its images read ahead by threads, encoded in fixed batches, and put into the bytes of a file."""

import dataclasses
import io
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from spae.bulk.job import Format, Job
from spae.errors import InputError
from spae.sources import Record, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from spae.tokenizer import Tokenizer

# What a tokenizer looks at of an image.
Square = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "s s 3"]]

BATCH = 32
# Images that wait, already reduced to what the tokenizer looks at, while a batch is encoded.
AHEAD = 4 * BATCH


# Images one after the other whose files cannot be opened: then it is no matter of the images.
GONE = 16


@dataclass(frozen=True)
class Bad:
    """An image that could not be read; `gone`: the system did not give its file."""

    key: str
    reason: str
    gone: bool = False

    @property
    def note(self) -> dict[str, str]:
        """What is written of it."""
        return {"key": self.key, "reason": self.reason}


@dataclass(frozen=True)
class Part:
    number: int
    data: bytes  # of the whole file
    images: int  # rows in it
    bad: tuple[Bad, ...]


def read_ahead(
    source: Source, indices: Iterable[int], square: Square, pool: ThreadPoolExecutor
) -> Generator[Record | Bad]:
    """The records in order, their images made `Tokenizer.square`s; at most AHEAD of them wait in memory."""
    waiting: deque[Future[Record | Bad]] = deque()
    try:
        for index in indices:
            waiting.append(pool.submit(_read, source, index, square))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def encode_part(
    tokenizer: "Tokenizer",
    job: Job,
    number: int,
    records: Iterable[Record | Bad],
    advance: Callable[[int], object] = lambda images: None,
) -> Part:
    """The part of these records, which are those of `job.indices(number)`.

    Batches never reach beyond a part, so that what an image is encoded together with, and with it every last bit,
    is the same however many parts are done at once, by whom and in which order.

    Args:
        advance: told how many images more have been dealt with.

    Raises:
        InputError: the files of GONE images in a row cannot be opened.
    """
    rows: list[dict[str, Any]] = []
    bad: list[Bad] = []
    batch: list[Record] = []
    told = gone = 0
    for record in chain(records, (None,)):
        gone = gone + 1 if isinstance(record, Bad) and record.gone else 0
        if isinstance(record, Bad) and gone == GONE:
            raise InputError(
                f"{GONE} images in a row cannot be opened, last {record.key} ({record.reason}): see whether the disk "
                "or bucket is still there; the same command goes on"
            )
        if isinstance(record, Bad):
            bad.append(record)
        elif record is not None:
            batch.append(record)
        if len(batch) == BATCH or (record is None and batch):
            pyramids = tokenizer.encode([one.image for one in batch])
            for one, pyramid in zip(batch, pyramids, strict=True):
                rows.append(
                    {
                        "key": one.key,
                        "label": one.label,
                        "caption": one.caption,
                        "text": pyramid.text(job.layers),
                        "layers": pyramid.json(job.layers),
                    }
                )
            batch = []
            advance(len(rows) + len(bad) - told)
            told = len(rows) + len(bad)
    advance(len(rows) + len(bad) - told)
    return Part(number, file_bytes(rows, job.format), len(rows), tuple(bad))


def file_bytes(rows: list[dict[str, Any]], format: Format) -> bytes:
    """The part file: a JSON object a line, or parquet with the same fields as columns."""
    if format == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(_table(rows), buffer, compression="zstd")
    return buffer.getvalue()


def _table(rows: list[dict[str, Any]]) -> "pa.Table":
    """The rows as columns. Lists of lists are put together from their flat values and where each begins, which takes
    a fraction of the time that pyarrow needs to look at every number and word by itself."""
    import pyarrow as pa

    layers = [layer for row in rows for layer in row["layers"]]

    def lists(values: "pa.Array", lengths: list[int]) -> "pa.Array":
        return pa.ListArray.from_arrays(np.cumsum([0, *lengths], dtype=np.int32), values)

    def of_layers(name: str, kind: "pa.DataType") -> "pa.Array":
        flat = pa.array([value for layer in layers for value in layer[name]], kind)
        return lists(flat, [len(layer[name]) for layer in layers])

    columns = {
        "height": pa.array([layer["height"] for layer in layers], pa.int32()),
        "width": pa.array([layer["width"] for layer in layers], pa.int32()),
        "words": of_layers("words", pa.string()),
        "ids": of_layers("ids", pa.int32()),
    }
    of_rows = lists(
        pa.StructArray.from_arrays(list(columns.values()), list(columns)),
        [len(row["layers"]) for row in rows],
    )
    texts = {
        name: pa.array([row[name] for row in rows], pa.string())
        for name in ("key", "label", "caption", "text")
    }
    return pa.table({**texts, "layers": of_rows})


def _read(source: Source, index: int, square: Square) -> Record | Bad:
    gone = False
    try:
        record = source[index]
        for text in (record.key, record.label, record.caption):
            (text or "").encode()
        return dataclasses.replace(record, image=square(record.image))
    except InputError as error:
        reason, gone = str(error), isinstance(error.__cause__, OSError)
    except UnicodeEncodeError:
        reason = "its name is not UTF-8: rename it"
    # What is not UTF-8 is written as \udcNN.
    key, reason = (text.encode(errors="backslashreplace").decode() for text in (source.key(index), reason))
    return Bad(key, reason, gone)
