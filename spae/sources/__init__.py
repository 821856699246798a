"""Many images behind one door: a folder, tar shards, a TFDS directory or parquet files, read by index.

Every source is random access, picklable and safe to read from several threads. Labels and captions are read
without decoding any image.
"""

import glob
from pathlib import Path

from spae.errors import InputError
from spae.sources.fields import EXTENSIONS
from spae.sources.folder import FileSource, FolderSource
from spae.sources.source import Record, Source

__all__ = ["EXTENSIONS", "FileSource", "FolderSource", "Record", "Source", "open_source"]

_WANTED = "a folder of images, .tar or .parquet files, or a TFDS directory"


def open_source(path: str | Path, size: int | None = None, split: str | None = None) -> Source:
    """The images at `path`: which kind it is, is seen from what lies there.

    - A folder of .jpg (.jpeg, .jpe, .jfif), .png and .webp files, at any depth, behind links too, but not in hidden
      folders. The folder directly around a file is its label (of files at the top the WordNet id that the names of
      ImageNet's files begin with, or none); `name.txt` beside `name.jpg` is its caption. WebDataset's fields count
      too, see `spae.sources.fields`: `name.cls` is the label, `name.json` may hold what is not said otherwise.
    - Tar shards, uncompressed: one .tar, a glob (`train-*.tar`), or a folder with .tar files. Members
      `<label>/<name>.jpg` and fields, as in a folder. Indexed once, then read by offset.
    - Parquet files, in the same three ways: a column `image` (bytes, or Hugging Face's struct of bytes and
      path), and perhaps `label` and `caption`. Needs pyarrow. To read one row its row group is decoded.
    - A TFDS directory (`<name>/<config>/<version>` with dataset_info.json) in array_record format; `split`
      is TFDS's split, by default "train". Needs tensorflow-datasets and array-record, not TensorFlow.

    Labels are in composed letters, with single spaces for all other white space (`fields.class_name`).
    `size` is the side that the images will be reduced to: large JPEGs are then decoded several times faster.

    Raises:
        InputError: nothing there, no images, an unreadable file, a folder with archives of both kinds.
    """
    if "://" in str(path):
        raise InputError(
            f"wanted files of this machine, got {path}: mount the bucket (gcsfuse, s3fs), or copy it"
        )
    files = _files(path)
    directory = Path(path)
    if split is not None and not (directory / "dataset_info.json").is_file():
        raise InputError(f"a split ({split}) is for a TFDS directory, and {path} is none: leave it out")
    # Imported here: most who ask this package something have a folder, or a single file.
    from spae.sources.parquet import ParquetSource
    from spae.sources.tar import TarSource
    from spae.sources.tfds import TfdsSource

    if files and files[0].suffix == ".tar":
        return TarSource(files, size)
    if files and files[0].suffix == ".parquet":
        return ParquetSource(files, size)
    if (directory / "dataset_info.json").is_file():
        return TfdsSource(directory, split or "train", size)
    return FolderSource(directory, size)


def _files(path: str | Path) -> list[Path]:
    """The shards that `path` names; empty for a folder without any."""
    found = Path(path)
    if found.is_dir():
        tar, parquet = (sorted(found.glob(f"[!.]*.{kind}")) for kind in ("tar", "parquet"))
        if tar and parquet:
            raise InputError(f"{path} has .tar and .parquet files: say which, such as '{path}/*.tar'")
        return tar or parquet
    files = [found] if found.exists() else [Path(name) for name in sorted(glob.glob(str(path)))]
    if not files:
        raise InputError(f"nothing at {path}: wanted {_WANTED}")
    suffixes = {file.suffix for file in files}
    if len(suffixes) > 1 or suffixes & {".tar", ".parquet"} == set():
        raise InputError(f"{path} is no data set: wanted {_WANTED}")
    return files
