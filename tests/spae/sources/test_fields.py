"""Sets as others write them: WebDataset's fields, names in every spelling, hidden folders, links to nothing."""

import io
import json
import os
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spae.bulk.folder import Folder
from spae.errors import InputError
from spae.sources import Source, open_source
from spae.sources.fields import class_name, keys_of

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, form)
    return buffer.getvalue()


def opened(kind: str, place: Path, members: dict[str, bytes]) -> Source:
    """The members as a folder or as a tar shard."""
    if kind == "folder":
        for name, content in members.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        return open_source(place)
    with tarfile.open(place / "shard.tar", "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return open_source(place)


def said(source: Source) -> dict[str, tuple[str | None, str | None]]:
    """Key -> label and caption, after what is read without the image was compared with what is read with it."""
    records = list(source)
    assert [record.label for record in records] == source.labels
    assert [record.caption for record in records] == [source.caption(index) for index in range(len(source))]
    return {record.key.removeprefix("shard.tar/"): (record.label, record.caption) for record in records}


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_fields_of_webdataset(kind, tmp_path):
    source = opened(
        kind,
        tmp_path,
        {
            "000.jpg": encoded("JPEG"),
            "000.cls": b"7\n",
            "000.txt": b"\xef\xbb\xbfa caption\n",
            "000.json": b'{"label": 1, "caption": "another"}',
            "001.png": encoded(),
            "001.json": json.dumps(
                {"caption": ["the first", "the second"], "label": "red fox", "url": "x"}
            ).encode(),
            "k.left.jpg": encoded("JPEG"),
            "k.right.jpg": encoded("JPEG"),
            "k.txt": b"both",
            "k.right.txt": b"the right one",
            "k.cls": b"fox",
            "cat/a.v2.png": encoded(),
            "cat/a.v2.txt": b"a cat",
            "cat/a.v2.json": b'{"label": 3}',
            "train/b.png": encoded(),
            "train/b.cls": b"4",
            "l.png": encoded(),
            "l.json": b"{broken",
            "m.png": encoded(),
            "m.json": b'["of", "another", "program"]',
            "n.png": encoded(),
            "n.json": b'{"label": null, "caption": {"en": "x"}}',
        },
    )
    assert said(source) == {
        "000.jpg": ("7", "a caption"),
        "001.png": ("red fox", "the first"),
        "k.left.jpg": ("fox", "both"),
        "k.right.jpg": ("fox", "the right one"),
        "cat/a.v2.png": ("cat", "a cat"),
        "train/b.png": ("4", None),
        "l.png": (None, None),
        "m.png": (None, None),
        "n.png": (None, None),
    }


def test_fields_that_are_not_read_are_said(tmp_path, caplog):
    members = {
        "000.jpg": encoded("JPEG"),
        "000.npy": b"x",
        "000.seg.pyd": b"x",
        "000.cls": b"1",
        "readme.md": b"x",
    }
    opened("tar", tmp_path, members)
    (record,) = caplog.records
    assert record.getMessage().endswith("shard.tar: of what stands beside the images, .npy, .pyd is not read")


def test_keys():
    assert keys_of("cat/k.left.jpg") == ["cat/k.left", "cat/k"]
    assert keys_of("v1.2/k.jpg") == ["v1.2/k"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_every_suffix_of_a_jpeg(kind, tmp_path):
    names = [
        f"cat/{number}{suffix}" for number, suffix in enumerate((".jpg", ".jpeg", ".jpe", ".JFIF", ".Jpg"))
    ]
    source = opened(kind, tmp_path, dict.fromkeys(names, encoded("JPEG")))
    assert list(said(source)) == names


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_hidden_folders_are_no_classes(kind, tmp_path):
    names = (
        "cat/a.png",
        "cat/.ipynb_checkpoints/a-checkpoint.png",
        ".ipynb_checkpoints/b.png",
        ".Trash-1000/files/c.png",
        "__MACOSX/cat/._a.png",
        "cat/.hidden.png",
    )
    source = opened(kind, tmp_path, dict.fromkeys(names, encoded()))
    assert said(source) == {"cat/a.png": ("cat", None)}


def test_a_hidden_folder_may_be_the_root(tmp_path):
    source = opened("folder", tmp_path / ".cache/images", {"cat/a.png": encoded()})
    assert source.labels == ["cat"]


def test_hidden_archives_are_left_alone(tmp_path):
    opened("tar", tmp_path, {"cat/a.png": encoded()})
    (tmp_path / "._shard.tar").write_bytes(b"what macOS leaves beside a file")
    assert len(open_source(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_one_class_however_its_name_is_written(kind, tmp_path):
    composed = "crème brûlée"
    names = (f"{composed}/a.png", unicodedata.normalize("NFD", composed) + "/b.png", "crème\n brûlée /c.png")
    source = opened(kind, tmp_path, dict.fromkeys(names, encoded()))
    assert set(source.labels) == {composed}
    assert sorted(source.keys) == sorted(f"shard.tar/{name}" if kind == "tar" else name for name in names)


def test_class_names():
    assert class_name(" a\u2028b\u00a0\tc\r\n") == "a b c"
    assert class_name("A\u030angstro\u0308m") == "Ångström"
    assert class_name(" \n") == ""


def test_names_of_parquet_and_labels_as_pandas_leaves_them(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {"image": [encoded()] * 4, "label": [1.0, None, -1.0, 0.0]}
    ).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["cafe\u0301", "a\nb"]}}}})}
    )
    parquet.write_table(table, tmp_path / "train.parquet")
    assert open_source(tmp_path).labels == ["a b", None, None, "café"]


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("no JSON", "are not in JSON"),
        ("[" * 100_000, "are not in JSON"),
        ("null", "are not where they should be"),
        ("[1]", "are not where they should be"),
        ('{"info": null}', "are not where they should be"),
        ('{"info": {"features": []}}', "are not where they should be"),
        ('{"info": {"features": {"label": {"names": 3}}}}', "are no list of texts"),
        ('{"info": {"features": {"label": {"names": ["cat", null]}}}}', "are no list of texts"),
    ],
)
def test_broken_metadata_of_parquet_is_one_line(tmp_path, caplog, metadata, reason):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [encoded()], "label": [1]}).replace_schema_metadata(
        {"huggingface": metadata}
    )
    parquet.write_table(table, tmp_path / "train.parquet")
    source = open_source(tmp_path)
    assert source[0].label == source.label(0) == "1"
    (record,) = caplog.records
    assert f"train.parquet: the names of classes in its metadata {reason}" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_one_bad_row_of_parquet_leaves_the_others(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    images = [{"bytes": encoded(), "path": None}] * 3 + [{"bytes": None, "path": "cat/4.png"}, None]
    table = pyarrow.table({"image": images, "label": [0, 2, 1, 1, 0]}).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'}
    )
    parquet.write_table(table, tmp_path / "train.parquet")
    source = open_source(tmp_path)
    assert [source.label(index) for index in (0, 2, 3)] == ["cat", "dog", "dog"]
    assert [source[index].label for index in (0, 2)] == ["cat", "dog"]
    for read in (lambda: source.label(1), lambda: source[1], lambda: source.labels):
        with pytest.raises(
            InputError, match=r"^train\.parquet/1: wanted the label .* one of 2 classes, got 2$"
        ):
            read()
    with pytest.raises(
        InputError, match=r"^train\.parquet/3: wanted the bytes .* only the path 'cat/4\.png': embed"
    ):
        source[3]
    with pytest.raises(InputError, match=r"^train\.parquet/4: wanted the bytes .* got nothing$"):
        source[4]


def test_links_to_nothing(tmp_path):
    source = opened("folder", tmp_path / "set", {"cat/a.png": encoded(), "cat/c.png": encoded()})
    before = source.identity
    (tmp_path / "set/cat/b.png").symlink_to(tmp_path / "gone.png")
    source = open_source(tmp_path / "set")
    assert source.labels == ["cat"] * 3
    assert len({before, source.identity, source.fingerprint}) == 3
    np.testing.assert_array_equal(source[2].image, PIXELS)
    with pytest.raises(
        InputError, match=r"cannot read .*b\.png: it is a link to .*gone\.png, which is not there; mend"
    ):
        source[1]
    # Of a set, a class is missing rather than an image.
    (tmp_path / "set/dog").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"set/dog: it is a link to .*gone, which is not there"):
        open_source(tmp_path / "set")


def test_a_file_that_goes_while_it_is_used(tmp_path):
    source = opened("folder", tmp_path, {"cat/a.png": encoded()})
    os.unlink(tmp_path / "cat/a.png")
    for use in (lambda: source[0], lambda: source.identity, lambda: source.fingerprint):
        with pytest.raises(InputError, match=r"cannot read .*a\.png: No such file or directory$"):
            use()


def test_every_archive_is_read_or_refused(tmp_path):
    opened("tar", tmp_path, {"cat/a.png": encoded()})
    with pytest.raises(InputError, match=r"second\.tar, which is named like images to read"):
        Folder(tmp_path / "second.tar", job=None)
    (tmp_path / "train.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"has \.tar and \.parquet files: say which, such as '.*/\*\.tar'"):
        open_source(tmp_path)
    assert len(open_source(f"{tmp_path}/*.tar")) == 1
