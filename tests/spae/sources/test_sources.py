"""The same images come out of every kind of source, by index, with labels and captions, from any thread."""

import io
import pickle
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from spae.errors import InputError
from spae.sources import open_source
from spae.sources.folder import walk

GENERATOR = np.random.default_rng(0)
# name -> pixels; sorted, as folders are read.
PICTURES = {
    name: GENERATOR.integers(0, 255, (5 + i, 7, 3), dtype=np.uint8)
    for i, name in enumerate(["cat/a.png", "cat/b.png", "dog/a.png", "dog/c.png", "fox/z.png"])
}
LABELS = ["cat", "cat", "dog", "dog", "fox"]


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "folder"
    for name, pixels in PICTURES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(pixels))
    (root / "cat/a.txt").write_text("a cat\n")
    (root / ".DS_Store").write_bytes(b"x")
    return root


@pytest.fixture
def shards(tmp_path):
    names = list(PICTURES)
    write_tar(
        tmp_path / "s-0.tar", {name: png(PICTURES[name]) for name in names[:3]} | {"cat/a.txt": b"a cat"}
    )
    write_tar(tmp_path / "s-1.tar", {name: png(PICTURES[name]) for name in names[3:]})
    return tmp_path / "s-*.tar"


@pytest.fixture
def parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table(
        {
            "image": [{"bytes": png(pixels), "path": name} for name, pixels in PICTURES.items()],
            "label": [0, 0, 1, 1, 2],
            "caption": ["a cat", None, None, None, None],
        }
    ).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog", "fox"]}, "image": {}}}}'}
    )
    parquet.write_table(table, tmp_path / "train.parquet", row_group_size=2)
    return tmp_path / "train.parquet"


@pytest.fixture
def tfds_directory(tmp_path):
    pytest.importorskip("array_record")
    tfds = pytest.importorskip("tensorflow_datasets")

    class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["cat", "dog", "fox"]),
                    "caption": tfds.features.Text(),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples(LABELS), "test": self._generate_examples([-1])}

        def _generate_examples(self, labels):
            for i, (name, label) in enumerate(zip(PICTURES, labels, strict=False)):
                caption = "a cat" if name == "cat/a.png" else ""
                yield i, {"image": io.BytesIO(png(PICTURES[name])), "label": label, "caption": caption}

    builder = Pets(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


@pytest.mark.parametrize("kind", ["folder", "shards", "parquet", "tfds_directory"])
def test_every_kind_gives_the_same_records(kind, request):
    source = open_source(request.getfixturevalue(kind))
    assert len(source) == 5
    records = list(source)
    if kind == "tfds_directory":  # TFDS shuffles by a hash of the keys
        expected = {pixels.tobytes(): label for pixels, label in zip(PICTURES.values(), LABELS, strict=True)}
        assert {record.image.tobytes(): record.label for record in records} == expected
    else:
        assert [record.label for record in records] == LABELS
        for record, pixels in zip(records, PICTURES.values(), strict=True):
            assert record.image.dtype == np.uint8
            np.testing.assert_array_equal(record.image, pixels)
    assert source.labels == [record.label for record in records]
    assert [record.caption for record in records if record.caption] == ["a cat"]
    assert source.keys == [record.key for record in records]
    assert len(set(source.keys)) == 5
    assert [source.label(index) for index in range(5)] == source.labels
    assert [source.caption(index) for index in range(5)] == [record.caption for record in records]
    np.testing.assert_array_equal(source[-1].image, records[4].image)
    with pytest.raises(IndexError):
        source[5]


@pytest.mark.parametrize("kind", ["folder", "shards", "parquet", "tfds_directory"])
def test_pickled_and_threaded_reading(kind, request):
    source = open_source(request.getfixturevalue(kind))
    expected = [record.image.tobytes() for record in source]
    copy = pickle.loads(pickle.dumps(source))
    indices = list(range(5)) * 20
    with ThreadPoolExecutor(8) as pool:
        for reader in (source, copy):
            got = list(pool.map(lambda index, reader=reader: reader[index].image.tobytes(), indices))
            assert got == [expected[index] for index in indices]
    assert copy.fingerprint == source.fingerprint


def test_fingerprint_follows_names_and_content(folder):
    before = open_source(folder).fingerprint
    assert open_source(folder).fingerprint == before
    (folder / "cat/b.png").write_bytes(png(PICTURES["cat/a.png"]))
    changed = open_source(folder).fingerprint
    assert changed != before
    (folder / "cat/b.png").rename(folder / "cat/c.png")
    assert open_source(folder).fingerprint not in (before, changed)


def test_tar_fingerprint_follows_content(shards):
    before = open_source(shards).fingerprint
    write_tar(shards.parent / "s-1.tar", {"dog/c.png": png(PICTURES["fox/z.png"])})
    assert open_source(shards).fingerprint != before


def test_identity_is_cheap_and_follows_the_content(folder, shards, monkeypatch):
    for path in (folder, shards):
        source = open_source(path)
        before = source.identity
        assert open_source(path).identity == before
        # One bit anywhere, names and sizes as they were: up to 16 MB every byte counts.
        file = source.files[-1]
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        assert open_source(path).identity != before
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        assert open_source(path).identity == before
    # With more than that, only blocks are read, but every size counts.
    monkeypatch.setattr("spae.sources.source._BLOCKS", 2)
    monkeypatch.setattr("spae.sources.source._BLOCK_BYTES", 8)
    before = open_source(folder).identity
    file = open_source(folder).files[2]
    file.write_bytes(file.read_bytes() + b"x")
    assert open_source(folder).identity != before
    file.rename(file.with_name("renamed.png"))
    assert open_source(folder).identity != before


def test_identity_follows_what_files_beside_the_images_say(folder):
    before = open_source(folder).identity
    said = folder / "more.txt"
    said.write_text("a fox")
    with_caption = open_source(folder).identity
    said.write_text("a cat")  # as long as before
    assert len({before, with_caption, open_source(folder).identity}) == 3
    said.unlink()
    assert open_source(folder).identity == before


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


# As ImageNet has them: names in capitals, a few CMYK, one PNG under the name of a JPEG.
IMAGENET = {
    "n01440764/n01440764_10026.JPEG": jpeg(Image.new("RGB", (50, 40), (200, 30, 60))),
    "n01440764/n01440764_27955.JPEG": jpeg(Image.new("L", (40, 50), 90)),
    "n02105855/n02105855_2933.JPEG": png(np.full((30, 30, 3), 7, np.uint8)),
    "n03018349/n03018349_4028.JPEG": jpeg(Image.new("CMYK", (40, 40), (0, 0, 0, 127))),
}


@pytest.mark.parametrize("kind", ["folder", "shards", "tfds"])
def test_imagenet_in_its_usual_places(kind, tmp_path):
    if kind == "folder":
        path = tmp_path / "ILSVRC2012" / "train"
        for name, data in IMAGENET.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    elif kind == "shards":
        path = tmp_path / "*.tar"
        write_tar(tmp_path / "imagenet-000.tar", dict(list(IMAGENET.items())[:2]))
        write_tar(tmp_path / "imagenet-001.tar", dict(list(IMAGENET.items())[2:]))
    else:
        path = imagenet2012(tmp_path)
    source = open_source(path, size=16)
    labels = sorted(name.split("/")[0] for name in IMAGENET)
    assert sorted(str(label) for label in source.labels) == labels
    for record in source:
        assert record.image.dtype == np.uint8
        assert record.image.shape[2] == 3
        wanted = {"n02105855": (7, 7, 7), "n03018349": (128, 128, 128)}.get(record.label)
        if wanted:
            np.testing.assert_allclose(record.image.mean((0, 1)), wanted, atol=2)
    assert len(source.identity) == 64


def imagenet2012(folder):
    """A TFDS directory with the features of imagenet2012, and without TensorFlow."""
    pytest.importorskip("array_record")
    tfds = pytest.importorskip("tensorflow_datasets")

    class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("5.1.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=sorted({name.split("/")[0] for name in IMAGENET})),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for name, data in IMAGENET.items():
                label, file_name = name.split("/")
                yield file_name, {"image": io.BytesIO(data), "label": label, "file_name": file_name}

    builder = Imagenet2012(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    assert "tensorflow" not in sys.modules
    return builder.data_path


def test_a_hard_link_in_a_shard_is_the_image_that_it_links_to(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind, link in (
            ("cat/a.png", tarfile.REGTYPE, ""),
            ("dog/b.png", tarfile.LNKTYPE, "cat/a.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            data = b"" if link else png(PICTURES["fox/z.png"])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    source = open_source(tmp_path / "a.tar")
    assert source.labels == ["cat", "dog"]
    np.testing.assert_array_equal(source[0].image, source[1].image)


def test_shards_of_one_name_have_keys_of_their_own(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "00000.tar", {"cat/a.png": png(PICTURES["fox/z.png"])})
    assert open_source(str(tmp_path / "*" / "00000.tar")).keys == [
        "one/00000.tar/cat/a.png",
        "two/00000.tar/cat/a.png",
    ]


def test_labels_and_captions_of_parquet_that_are_bytes_or_not_there(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    image = png(PICTURES["fox/z.png"])
    columns = {"image": [image] * 2, "label": [b"cat", None], "caption": [b"a cat", None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "bytes.parquet")
    source = open_source(tmp_path / "bytes.parquet")
    assert (source.labels, source.caption(0)) == (["cat", None], "a cat")
    parquet.write_table(
        pyarrow.table({"image": [image] * 2, "label": [2.0, float("nan")]}), tmp_path / "nan.parquet"
    )
    assert open_source(tmp_path / "nan.parquet").labels == ["2.0", None]


def test_folder_of_shards_and_one_shard(shards):
    assert len(open_source(shards.parent)) == 5
    assert len(open_source(shards.parent / "s-1.tar")) == 2


def test_imagenets_own_names_tell_the_class_where_nothing_else_does(tmp_path):
    image = png(PICTURES["cat/a.png"])
    names = (
        "n01440764_10026.png",
        "n01440764_tench.png",
        "n0144076_4.png",
        "xn01440764_1.png",
        "n01440764.png",
    )
    write_tar(tmp_path / "flat.tar", dict.fromkeys(names, image) | {"n01440764_tench.cls": b"fish"})
    found = ["n01440764", "fish", None, None, None]
    assert open_source(tmp_path / "flat.tar").labels == found
    write_tar(tmp_path / "cats.tar", {f"cat/{name}": image for name in names})
    assert open_source(tmp_path / "cats.tar").labels == ["cat"] * 5


def test_flat_members_have_no_label(tmp_path):
    write_tar(
        tmp_path / "red_green.tar",
        {"n01_cat.png": png(PICTURES["cat/a.png"]), "./x.PNG": png(PICTURES["dog/a.png"])},
    )
    source = open_source(tmp_path / "red_green.tar")
    assert source.labels == [None, None]
    assert source[1].label is None


def test_size_speeds_up_large_jpegs(tmp_path):
    Image.new("RGB", (1600, 1200), (10, 200, 30)).save(tmp_path / "large.jpg")
    assert open_source(tmp_path)[0].image.shape == (1200, 1600, 3)
    assert open_source(tmp_path, size=64)[0].image.shape == (150, 200, 3)


def test_bad_image_names_file_and_member(folder, tmp_path):
    (folder / "dog/a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"dog/a\.png: the image is empty"):
        open_source(folder)[2]
    write_tar(tmp_path / "bad.tar", {"cat/broken.png": png(PICTURES["cat/a.png"])[:70]})
    with pytest.raises(InputError, match=r"bad\.tar/cat/broken\.png: the image is damaged"):
        open_source(tmp_path / "bad.tar")[0]


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        open_source(tmp_path / "missing")
    with pytest.raises(InputError, match="nothing at"):
        open_source(tmp_path / "missing-*.tar")
    with pytest.raises(InputError, match="no images in"):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="is no data set"):
        open_source(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="TFDS directory"):
        open_source(tmp_path, split="train")
    (tmp_path / "not.tar").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match="uncompressed tar"):
        open_source(tmp_path / "not.tar")


def test_cut_tar(shards):
    path = shards.parent / "s-0.tar"
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match="ends early"):
        source[0]
    with pytest.raises(InputError, match="uncompressed tar"):
        open_source(path)


def test_a_member_that_was_written_again_replaces_the_first(shards):
    shard = shards.parent / "s-0.tar"
    data = png(PICTURES["fox/z.png"])
    with tarfile.open(shard, "a") as archive:
        member = tarfile.TarInfo("./cat/a.png")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    source = open_source(shard)
    assert source.keys == ["s-0.tar/cat/a.png", "s-0.tar/cat/b.png", "s-0.tar/dog/a.png"]
    np.testing.assert_array_equal(source[0].image, PICTURES["fox/z.png"])


def test_links_to_folders_are_followed(folder, tmp_path):
    (tmp_path / "subset").mkdir()
    for name in ("cat", "fox"):
        (tmp_path / "subset" / name).symlink_to(folder / name)
    (tmp_path / "subset" / "both").symlink_to(folder / "cat")
    source = open_source(tmp_path / "subset")
    assert source.labels == ["both", "both", "cat", "cat", "fox"]
    np.testing.assert_array_equal(source[4].image, PICTURES["fox/z.png"])
    (folder / "fox" / "all").symlink_to(folder)
    with pytest.raises(InputError, match="fox/all is a link to a folder around it"):
        open_source(folder)


def test_a_folder_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none: No such file"):
        list(walk(tmp_path / "none"))


def test_a_shard_that_is_gone(shards):
    source = open_source(shards.parent / "s-0.tar")
    (shards.parent / "s-0.tar").unlink()
    with pytest.raises(InputError, match=r"cannot read .*s-0\.tar: No such file"):
        source[0]


def test_a_damaged_record_of_tfds(tfds_directory):
    source = open_source(tfds_directory, split="train")
    file = next(file for file in source.files if "train.array_record" in file.name)
    data = bytearray(file.read_bytes())
    data[data.index(b"PNG")] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read train/\d of .*pets.*: .*hash mismatch") as caught:
        list(open_source(tfds_directory, split="train"))
    assert "\n" not in str(caught.value)


def test_broken_metadata_of_tfds_is_one_line(tfds_directory):
    directory = open_source(tfds_directory, split="train").directory
    for name in ("dataset_info.json", "features.json"):
        file = directory / name
        whole = file.read_bytes()
        for broken in (b"no JSON", b"null", b"[1]", b"{}", b""):
            file.write_bytes(broken)
            with pytest.raises(InputError, match="cannot read split train of the TFDS directory") as caught:
                open_source(directory, split="train")
            assert "\n" not in str(caught.value)
        file.write_bytes(whole)
    (directory / "label.labels.txt").write_text("cat\n")
    with pytest.raises(InputError, match=r"train/\d of .*: wanted the label .* one of 1 classes, got [12]$"):
        list(open_source(directory, split="train"))


def test_bad_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"number": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(InputError, match="no column image"):
        open_source(tmp_path / "numbers.parquet")
    (tmp_path / "noise.parquet").write_bytes(b"noise" * 10)
    with pytest.raises(InputError, match="as parquet"):
        open_source(tmp_path / "noise.parquet")
    for name, columns in (("a", {"image": [b""], "label": [1]}), ("b", {"image": [b""]})):
        parquet.write_table(pyarrow.table(columns), tmp_path / f"shard-{name}.parquet")
    with pytest.raises(
        InputError, match=r"shard-b\.parquet has no column label, which .*shard-a\.parquet has"
    ):
        open_source(tmp_path / "shard-*.parquet")


def test_a_class_that_is_not_told_is_no_label(tmp_path, tfds_directory):
    """Not the last class, which counting from the end would give."""
    source = open_source(tfds_directory, split="test")
    assert source.labels == [source[0].label] == [None]

    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    image = png(PICTURES["cat/a.png"])
    table = pyarrow.table({"image": [image, image], "label": [-1, 1]}).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'}
    )
    parquet.write_table(table, tmp_path / "test.parquet")
    source = open_source(tmp_path / "test.parquet")
    assert source.labels == [record.label for record in source] == [None, "dog"]
    beyond = table.set_column(1, "label", [[2, 0]])
    parquet.write_table(beyond, tmp_path / "beyond.parquet")
    with pytest.raises(InputError, match="one of 2 classes, got 2"):
        open_source(tmp_path / "beyond.parquet")[0]


def test_captions_of_parquet_are_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [png(PICTURES["cat/a.png"])] * 2, "text": [7, None]})
    parquet.write_table(table, tmp_path / "numbers.parquet")
    assert [record.caption for record in open_source(tmp_path / "numbers.parquet")] == ["7", None]


def test_a_damaged_row_group_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "damaged.parquet"
    table = pyarrow.table({"image": [png(pixels) for pixels in PICTURES.values()]})
    parquet.write_table(table, file, row_group_size=3, use_dictionary=False)
    data = bytearray(file.read_bytes())
    data[4:40] = b"\xff" * 36  # the header of the first group's page
    file.write_bytes(data)
    source = open_source(file)
    with pytest.raises(InputError, match="cannot read row group 0 of "):
        source[0]
    np.testing.assert_array_equal(source[3].image, PICTURES["dog/c.png"])


def test_damaged_labels_of_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "damaged.parquet"
    parquet.write_table(pyarrow.table({"label": [0, 1], "image": [b"", b""]}), file, use_dictionary=False)
    data = bytearray(file.read_bytes())
    data[4:20] = b"\xff" * 16  # the header of the labels' page
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read the labels of .*damaged") as caught:
        open_source(file).label(0)
    assert "\n" not in str(caught.value)


def test_several_classes_of_one_image_are_a_label_of_their_own(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [b"", b""], "label": [[0], [0, 1]]}).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": [{"names": ["cat", "dog"]}]}}}'}
    )
    parquet.write_table(table, tmp_path / "several.parquet")
    assert open_source(tmp_path / "several.parquet").labels == ["[0]", "[0, 1]"]


def test_unknown_split(tfds_directory):
    with pytest.raises(InputError, match="split validation"):
        open_source(tfds_directory, split="validation")


def test_real_shards(shared_data):
    source = open_source(shared_data / "tiny-imagenet-64" / "novel-*.tar")
    assert len(source) == 2000
    assert len(set(source.labels)) == 20
    record = source[1234]
    assert record.image.shape == (64, 64, 3)
    assert record.label in record.key
