"""What the experiments look at: labelled images, captioned images, and images with questions.

Doors: `labelled`, `captioned`, `asked` and `pictured`, each taking a path or the name of an installed set. What lies at
a path is recognised by its files; `icl_runner.data.layouts` reads each layout.
"""

from pathlib import Path

from icl_runner.data import layouts
from icl_runner.data.examples import ExampleSet
from icl_runner.data.sprites import as_images, tuxpaint
from spae.errors import InputError


def labelled(path: str | Path, split: str | None = None) -> ExampleSet:
    """Images with a class.

    `path` is "photographs" (the 14 shipped ones, each a class of its own), or a path:

    - `mnist.npz`, or a folder with it: `split` "test" (default) or "train"; the images are grey, 28 x 28;
    - mini-ImageNet by lists: `train.csv`, `val.csv`, `test.csv` (filename,label) beside `images/`; `split` is one of
      them, "test" by default; a `classes.tsv` beside them gives names, as below;
    - whatever `spae.sources.open_source` takes: folders per class (`split` is then a folder inside: mini-ImageNet's
      train, val, test), tar shards, parquet, TFDS. A `classes.tsv` beside the files (columns wnid and name, with tabs
      between) gives English names, and its column split, if there is one, may be asked for; WordNet ids without get
      their names of ImageNet; other labels are names.

    Raises:
        InputError: nothing there that is understood, images without a class, or a set's name that is a folder's, too.
    """
    if _is_installed(path, "photographs"):
        return layouts.photographs(split)
    folder = Path(path)
    if folder.suffix == ".npz" or (folder / "mnist.npz").is_file():
        return layouts.mnist(folder if folder.suffix == ".npz" else folder / "mnist.npz", split)
    if _by_lists(folder):
        return layouts.mini_imagenet(folder, split)
    return layouts.source(path, split, wanted="label")


def captioned(path: str | Path, split: str | None = None) -> ExampleSet:
    """Images with captions.

    `path` is "photographs" (the shipped ones), "tuxpaint" (photographic stamps, from Debian's package
    tuxpaint-stamps-default), or a path:

    - COCO captions: a folder with `annotations/captions_<split>.json` and `<split>/`; `split` is needed where there are
      several such files;
    - whatever `spae.sources.open_source` takes, with captions (the first line of `name.txt` beside
      `name.jpg`, or of a column).

    Raises:
        InputError: nothing there that is understood, images without a caption, a set that is not installed, or a name
            as for `labelled`.
    """
    if _is_installed(path, "photographs"):
        return layouts.photographs(split)
    if _is_installed(path, "tuxpaint"):
        if split is not None:
            raise InputError(f"tuxpaint has no splits, got {split}: leave --split out")
        return as_images(tuxpaint())
    if layouts.caption_files(Path(path)):
        return layouts.coco_captions(Path(path), split)
    return layouts.source(path, split, wanted="caption")


def asked(path: str | Path, split: str | None = None) -> ExampleSet:
    """Images with questions and answers.

    `path` is "easy-vqa" (the package of that name, MIT licence: drawn shapes, 64 x 64; `split` "test", the default, or
    "train"), or a folder of VQAv2: `v2_OpenEnded_mscoco_<split>_questions.json`, `v2_mscoco_<split>_annotations.json`
    and `<split>/COCO_<split>_<12 digits>.jpg`; `split` is needed where there are several.

    Raises:
        InputError: nothing there that is understood, the package is not installed, or a name as for `labelled`.
    """
    if _is_installed(path, "easy-vqa"):
        return layouts.easy_vqa(split)
    if not layouts.question_files(Path(path)):
        raise InputError(
            f'wanted "easy-vqa" or a folder with v2_OpenEnded_mscoco_<split>_questions.json, {path} is neither'
        )
    return layouts.vqa_v2(Path(path), split)


def pictured(path: str | Path, split: str | None = None) -> ExampleSet:
    """Images of which nothing else need be known: as `labelled` and `captioned`, but images without are welcome.

    Raises:
        InputError: nothing there that is understood, or a name as for `labelled`.
    """
    folder = Path(path)
    if layouts.caption_files(folder):
        return layouts.coco_captions(folder, split)
    digits = folder.suffix == ".npz" or (folder / "mnist.npz").is_file()
    if digits or _by_lists(folder) or _is_installed(path, "photographs"):
        return labelled(path, split)
    return layouts.source(path, split, wanted=None)


def _by_lists(folder: Path) -> bool:
    """Whether lists say what is there: those of mini-ImageNet, beside images/ or, as they come, beside no folder."""
    if not layouts.lists(folder):
        return False
    return (folder / "images").is_dir() or not any(one.is_dir() for one in folder.iterdir())


def _is_installed(path: str | Path, name: str) -> bool:
    """Whether the set of that name is meant, and no folder.

    Raises:
        InputError: there is a folder of that name, too.
    """
    if str(path) != name:
        return False
    if Path(name).exists():
        raise InputError(
            f"{name} is the name of an installed set, and of a folder here: write {Path(name).resolve()} for the "
            "folder; for the set, run from elsewhere"
        )
    return True
