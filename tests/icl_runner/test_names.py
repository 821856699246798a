"""Names of classes: one spelling for every source, and files that are not there."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from icl_runner.data import sets
from spae.errors import InputError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_names_are_shown_in_one_spelling(tmp_path):
    """Of folders, lists and tables; what is not one line would end an answer before its name does."""
    names = ["cre\u0300me__bru\u0302le\u0301e", "red\nfox", ".ipynb_checkpoints"]
    for name in names:
        picture(tmp_path / "folders" / name / "a.png")
    shown = {"crème brûlée", "red fox"}
    assert set(sets.labelled(tmp_path / "folders").class_names.values()) == shown
    picture(tmp_path / "lists/images/a.png")
    picture(tmp_path / "lists/images/b.png")
    rows = io.StringIO()
    csv.writer(rows).writerows([["filename", "label"], ["a.png", names[0]], ["b.png", names[1]]])
    (tmp_path / "lists/test.csv").write_text(rows.getvalue())
    assert set(sets.labelled(tmp_path / "lists").class_names.values()) == shown
    (tmp_path / "folders/classes.tsv").write_text(
        "wnid\tsplit\tname\ncrème__brûlée\tnovel\tcre\u0300me  dessert\n"
    )
    found = sets.labelled(tmp_path / "folders", "novel")
    assert found.class_names == {"crème__brûlée": "crème dessert"}
    (tmp_path / "folders/classes.tsv").write_text("wnid\tsplit\tname\nred fox\tnovel\n")
    with pytest.raises(InputError, match="a line is too short"):
        sets.labelled(tmp_path / "folders")


def test_a_listed_image_that_is_a_link_to_nothing(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "test.csv").write_text("filename,label\na.png,cat\n")
    found = sets.labelled(tmp_path)
    assert len(found.fingerprint) == 64
    with pytest.raises(InputError, match=r"a\.png: it is a link to .*gone\.png, which is not there"):
        found.image("a.png")
