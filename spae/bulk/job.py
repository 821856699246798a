"""What is to be done: which images, by which bundle, how many layers, in which files; and how it is cut into parts."""

import os
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from spae import bundle
from spae.errors import InputError
from spae.guidance.sight import trunk_side
from spae.pyramid import PyramidShape
from spae.sources import Source, open_source

Format = Literal["jsonl", "parquet"]

# Images of a part: what a killed run has to do again, and, as JSON, some 10 MB of memory and disk.
PART = 1024


@dataclass(frozen=True, kw_only=True)
class Job:
    """Images to words, in parts of `part_size` images by index; picklable."""

    path: str
    source: Source
    bundle: str  # a shipped name, an absolute path or a remote one: the same on every machine
    bundle_sha256: str
    layers: int
    format: Format
    part_size: int = PART

    def __len__(self) -> int:
        """The number of parts."""
        return -(-len(self.source) // self.part_size)

    def indices(self, number: int) -> range:
        """The images of part 0 <= number < len."""
        start = number * self.part_size
        return range(start, min(start + self.part_size, len(self.source)))

    def file_name(self, number: int) -> str:
        return f"part-{number:05}-of-{len(self):05}.{self.format}"

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of every part: runs into one folder must agree on all of it. Where bundle and images
        lie is not part of it."""
        return {
            "spae": version("spae"),
            "bundle_sha256": self.bundle_sha256,
            "source_sha256": self.source.identity,
            "images": len(self.source),
            "layers": self.layers,
            "files": self.format,
            "part_size": self.part_size,
            "parts": len(self),
        }


def open_job(
    path: str | Path,
    bundle_name: str = "default",
    *,
    layers: int | None = None,
    format: Format = "jsonl",
    split: str | None = None,
    part_size: int = PART,
) -> Job:
    """The job for the images at `path` (`spae.sources.open_source`), checked as far as can be without doing it.

    Args:
        path: a folder, tar shards, a TFDS directory or parquet files.
        bundle_name: the trained tokenizer.
        layers: the first so many; all of them by default.
        format: of the part files. Parquet needs pyarrow.
        split: of a TFDS directory.
        part_size: images of each part.

    Raises:
        InputError: no images, too many layers, another format, a package is missing, or a tokenizer of clips.
        BundleError: the bundle is not there or damaged.
    """
    if format not in get_args(Format):
        raise InputError(f"wanted part files in {' or '.join(get_args(Format))}, got {format!r}")
    if format == "parquet" and find_spec("pyarrow") is None:
        raise InputError("writing parquet needs pyarrow: pip install pyarrow, or write jsonl")
    if part_size < 1:
        raise InputError(f"wanted at least 1 image a part, got {part_size}")
    info = bundle.read(bundle_name, "tokenizer")[0]
    config = info["config"]
    shape = PyramidShape(tuple(config["pyramid"]))
    if len(shape.grid) != 2:
        raise InputError(
            f"spae bulk works on images, and the bundle {bundle_name} is of clips: give one of images"
        )
    shipped = (bundle.SHIPPED / bundle_name / "bundle.json").is_file()
    # What the tokenizer will look at, told by its header alone: networks are for those who do the parts.
    sight = max(config["image_size"], trunk_side(config.get("trunk", "none"), info.get("trunk", {})))
    # Absolute, because workers are started in other folders than this process.
    place = str(path) if "://" in str(path) else os.path.abspath(path)
    return Job(
        path=place,
        source=open_source(place, sight, split),
        bundle=bundle_name if shipped or "://" in bundle_name else os.path.abspath(bundle_name),
        bundle_sha256=bundle.sha256(bundle_name),
        layers=shape.check_layers(layers),
        format=format,
        part_size=part_size,
    )
