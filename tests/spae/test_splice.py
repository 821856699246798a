"""Texts with images in them, against a slow construction by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import SOFT
from spae.splice import IMAGE_ID, NO_LABEL, encode, splice

GOLDEN = Path(__file__).parents[1] / "golden" / "frozen_lm"


@pytest.fixture(scope="module")
def lm() -> frozen_lm.FrozenLM:
    return frozen_lm.load(GOLDEN / "llama")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_splicing_is_putting_vectors_between_rows(entries) -> None:
    """`entries`: is it an image, how many soft tokens or which id, is it to be said."""
    width, rng = 3, np.random.default_rng(0)
    table = rng.normal(size=(6, width)).astype(np.float32)
    ids = [IMAGE_ID if image else number for image, number, _ in entries]
    labels = [number if said and not image else NO_LABEL for image, number, said in entries]
    sizes = [number for image, number, _ in entries if image]
    soft = [rng.normal(size=(size, width)).astype(np.float32) for size in sizes]
    rows, said, left = [], [], list(soft)
    for id_, label in zip(ids, labels, strict=True):
        if id_ == IMAGE_ID:
            image = left.pop(0)
            rows += list(image)
            said += [NO_LABEL] * len(image)
        else:
            rows.append(table[id_])
            said.append(label)
    if not rows:
        with pytest.raises(InputError, match="empty"):
            splice(ids, labels, sizes)
        return
    spliced = splice(ids, labels, sizes)
    soft_sd = np.concatenate([np.zeros((0, width), np.float32), *soft])
    found = np.where(
        spliced.soft_n[:, None] >= 0,
        soft_sd[spliced.soft_n] if len(soft_sd) else np.zeros((len(rows), width)),
        table[spliced.ids_n],
    )
    np.testing.assert_array_equal(found, np.stack(rows))
    np.testing.assert_array_equal(spliced.labels_n, said)
    prompt = spliced.prompt(soft_sd)
    assert prompt.ids.count(SOFT) == sum(sizes)
    np.testing.assert_array_equal(prompt.vectors, soft_sd)


def test_only_answers_have_labels(lm) -> None:
    turns = [("<image> dog <image>Q: a?", " red"), (" and <image>", " blue")]
    ids, labels = encode(lm, turns)
    assert len(ids) == len(labels)
    said = [id_ for id_, label in zip(ids, labels, strict=True) if label != NO_LABEL]
    assert lm.tokenizer.decode(said) == " red blue"
    assert [label for label in labels if label != NO_LABEL] == said
    assert ids.count(IMAGE_ID) == 3
    # Without its images it is the text, from its beginning on.
    assert [id_ for id_ in ids if id_ != IMAGE_ID] == lm.encode(" dog Q: a? red and  blue")
    assert ids[: len(lm.encode("")) + 1] == [*lm.encode(""), IMAGE_ID]
    assert encode(lm, [("dog", "")])[0] == lm.encode("dog")


@pytest.mark.parametrize(
    ("ids", "labels", "sizes", "message"),
    [
        ([3, IMAGE_ID, 4], [-1, -1], [2], "wanted a label for each of 3 tokens, got 2"),
        ([3, IMAGE_ID, 4], [-1, -1, 4], [], r"wanted an image for each <image> of the text, got 0 for 1"),
        ([3, 4], [-1, 4], [2], r"got 1 for 0"),
        ([IMAGE_ID], [7], [2], "no label at an <image>, got 7"),
    ],
)
def test_what_does_not_fit_is_refused(ids, labels, sizes, message) -> None:
    with pytest.raises(InputError, match=message):
        splice(ids, labels, sizes)


def test_texts_that_cannot_be_said_are_refused(lm) -> None:
    with pytest.raises(InputError, match="cannot be said"):
        encode(lm, [("dog", "<image>")])
    with pytest.raises(InputError, match="at least one text"):
        encode(lm, [])
