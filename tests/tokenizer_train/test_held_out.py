"""Images that are kept for validation: of training's own source, never trained on."""

import numpy as np
import pytest

from spae.errors import InputError
from spae.sources import open_source
from tokenizer_train.held_out import MOST, Part, hold_out
from tokenizer_train.squares import Squares


def test_every_tenth_is_kept_and_the_rest_is_trained_on(image_folder) -> None:
    whole = open_source(image_folder)
    training, kept = hold_out(whole)
    assert (len(training), len(kept)) == (27, 3)
    assert sorted([*training.keys, *kept.keys]) == sorted(whole.keys)
    assert hold_out(open_source(image_folder))[1].keys == kept.keys
    assert len({whole.identity, training.identity, kept.identity}) == 3
    for part in (training, kept):
        for index, key in enumerate(part.keys):
            record = whole[whole.keys.index(key)]
            assert (part[index].key, part.label(index)) == (key, record.label)
            np.testing.assert_array_equal(part[index].image, record.image)
            np.testing.assert_array_equal(part.draw(index, np.random.default_rng(0)).image, record.image)


def test_of_many_no_more_than_enough_and_of_one_nothing(image_folder) -> None:
    source = open_source(image_folder)
    many = Part(source, np.arange(10_000) % len(source), "many")
    training, kept = hold_out(many)
    assert (len(training), len(kept)) == (10_000 - MOST, MOST)
    with pytest.raises(InputError, match=r"takes two images; got 1: give more images"):
        hold_out(Part(source, np.array([0]), "one"))


def test_another_size_is_another_reader(image_folder) -> None:
    _, kept = hold_out(open_source(image_folder, 16))
    squares = Squares(kept, 16, 32)
    assert squares.size == 32
    assert kept.size == 16
    assert squares[0].image.shape[0] == squares[0].image.shape[1]
    assert squares.key(1) == kept.key(1)
