"""The judge of generated photographs, on real ones."""

import numpy as np
import pytest

import spae
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.pictures.photographs import PhotographJudge
from icl_runner.tasks.generate import Generate
from spae.images import open_image, to_array

SPANIEL, GOLDFISH, TEAPOT, TRICYCLE, VOLCANO, BARN = LABELS = [
    "n02102318",
    "n01443537",
    "n04398044",
    "n04482393",
    "n09472597",
    "n02793495",
]
BLANK = np.full((64, 64, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def dogs():
    folder = spae.__path__[0]
    return to_array(open_image(f"{folder}/photographs/dogs.jpg"), 64)


def test_a_picture_shows_its_class_among_others(dogs):
    judge = PhotographJudge(LABELS)
    judge.prepare()
    assert judge.setting == {"judged_among": 6}
    pictures = np.stack([dogs, BLANK])
    found = {label: judge(pictures, label) for label in LABELS}
    assert found[SPANIEL]["class"][0]
    assert found[SPANIEL]["five"][0]
    # Whatever it sees in the grey picture: of six classes one is the likeliest, and five are the five likeliest.
    for picture in range(2):
        assert sum(found[label]["class"][picture] for label in LABELS) == 1
        assert sum(found[label]["five"][picture] for label in LABELS) == 5


def test_among_five_there_are_no_five_best(dogs):
    judge = PhotographJudge(LABELS[:5])
    judge.prepare()
    assert set(judge(dogs[None], SPANIEL)) == {"class"}


@pytest.mark.parametrize(
    ("labels", "options", "judged"),
    [
        ([SPANIEL, BARN], {}, True),
        (["dog", "barn"], {}, False),
        ([SPANIEL], {}, False),
        ([SPANIEL, "n02084071"], {}, False),  # "dog" is above ImageNet's classes
        ([SPANIEL, BARN], {"condition": "caption"}, False),
    ],
)
def test_what_is_judged(labels, options, judged):
    examples = ExampleSet(
        "two",
        [Example(label, label) for label in labels],
        dict.fromkeys(labels, "a"),
        lambda key: BLANK,
        lambda: "",
    )
    judge = Generate(model="fake/m", data="two", **options)._judge(examples)
    assert isinstance(judge, PhotographJudge) == judged
    assert (judge is None) != judged
