"""Words of meaning by regional pursuit, against a slow walk in NumPy over places and words."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.errors import InputError
from spae.guidance.regions import part_means
from spae.pursuit import Pursuit, Sizes
from spae.weights.parameters import restore

SIDES = (1, 2, 4)
PIXELS, PATCH = 16, 2
SIZES = Sizes(words=40, width=5, patch=3 * PATCH**2, components=3)
EYES = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def region_colours(image: np.ndarray, side: int) -> np.ndarray:
    """The mean colour of every square of a grid, row by row."""
    cell = PIXELS // side
    squares = [
        image[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell] for r in range(side) for c in range(side)
    ]
    return np.stack([square.mean((0, 1)) for square in squares])


class Trunk:
    """Sees of every region its mean colour, turned to five numbers."""

    def regions(self, images_bhwc, sides):
        b = images_bhwc.shape[0]
        cells = [images_bhwc.reshape(b, side, PIXELS // side, side, PIXELS // side, 3) for side in sides]
        return jnp.concatenate([cell.mean((2, 4)).reshape(b, -1, 3) for cell in cells], axis=1) @ EYES

    def parts(self, images_bhwc, weights_brhw):
        return part_means(images_bhwc, weights_brhw) @ EYES


def arrays(seed: int, whole: bool = False) -> dict[str, np.ndarray]:
    """Of a pursuit; with `whole`, vectors and colours of few whole numbers, so that words are alike."""
    rng = np.random.default_rng(seed)
    draw = partial(rng.integers, -1, 2) if whole else (lambda size: rng.normal(size=size))
    return {
        "ids": rng.permutation(1000)[: SIZES.words].astype(np.int32),
        "families": (rng.permutation(SIZES.words) % 30).astype(np.int32),
        "vectors": draw(size=(SIZES.words, SIZES.width)).astype(np.float32),
        "image_mean": (np.full(3, 0.5) @ EYES).astype(np.float32),
        "colours": draw(size=(SIZES.words, SIZES.components)).astype(np.float32),
        "patch_kernel": rng.normal(size=(SIZES.patch, SIZES.components)).astype(np.float32),
        "patch_bias": rng.normal(size=SIZES.components).astype(np.float32),
    }


def made(parts: dict[str, np.ndarray], pools: tuple[int, ...]) -> Pursuit:
    return restore(lambda rngs: Pursuit(SIZES, SIDES, pools, PIXELS), parts, "")


@partial(jax.jit, static_argnums=(0, 3))
def run(graph, state, images, count):
    pursuit = nnx.merge(graph, state)
    return pursuit(Trunk(), images), pursuit.rivals(Trunk(), images, count)


def ids_and_rivals(parts, pools, images, count=3):
    graph, state = nnx.split(made(parts, pools))
    return tuple(map(np.asarray, run(graph, state, images, count)))


def best(parts, target, above, colour, free, pool) -> int:
    """The candidate that one place takes: of the `pool` free ones whose sum with the words above lies best, the one
    nearest in colour."""
    scores = {}
    for m in free:
        total = above + parts["vectors"][m].astype(np.float64)
        length = np.linalg.norm(total) * np.linalg.norm(target)
        scores[m] = round(total @ target / length, 12) if length > 0 else 0.0
    good = sorted(free, key=lambda m: (-scores[m], m))[:pool]
    distances = [((parts["colours"][m].astype(np.float64) - colour) ** 2).sum() for m in good]
    return good[int(np.argmin(distances))]


def slow(parts, pools, image, count=3) -> tuple[list[int], list[list[int]]]:
    """Ids of every place and their rivals, in float64, place by place."""
    patches = image.reshape(PIXELS // PATCH, PATCH, PIXELS // PATCH, PATCH, 3).transpose(0, 2, 1, 3, 4)
    seen = (patches.reshape(PIXELS // PATCH, PIXELS // PATCH, -1) - 0.5) @ parts["patch_kernel"].astype(
        np.float64
    ) + parts["patch_bias"]
    families, taken, chosen, ids, rivals = parts["families"], set(), {}, [], []
    for side, pool in zip(SIDES, pools, strict=True):
        targets = region_colours(image, side) @ EYES - parts["image_mean"]
        cell = PIXELS // PATCH // side
        here = {}
        for place, target in enumerate(targets):
            row, column = divmod(place, side)
            # The squares above that hold this one's middle.
            above = np.zeros(SIZES.width)
            for (other, r, c), m in chosen.items():
                inside = [
                    at * side <= (2 * here_at + 1) * other / 2 <= (at + 1) * side
                    for at, here_at in ((r, row), (c, column))
                ]
                above += parts["vectors"][m] if all(inside) else 0
            colour = seen[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].mean((0, 1))
            free = [m for m in range(SIZES.words) if families[m] not in taken]
            m = best(parts, target, above, colour, free, pool)
            taken.add(families[m])
            here[side, row, column] = m
            ids.append(int(parts["ids"][m]))
            others, gone = [], {families[m]}
            for _ in range(count):
                free = [k for k in range(SIZES.words) if families[k] not in gone]
                others.append(best(parts, target, above, colour, free, pool))
                gone.add(families[others[-1]])
            rivals.append([int(parts["ids"][k]) for k in others])
        chosen |= here
    return ids, rivals


@pytest.mark.parametrize("pools", [(1, 1, 1), (1, 3, 8)])
def test_words_and_rivals_are_those_of_the_slow_walk(pools):
    @settings(max_examples=10)
    @given(st.integers(0, 2**32 - 1))
    def compare(seed):
        parts, images = arrays(seed), np.random.default_rng(seed).random((2, PIXELS, PIXELS, 3), np.float32)
        # Regions that differ: noise alone has one mean everywhere.
        images[:, : PIXELS // 2] *= np.random.default_rng(seed + 1).random(3, np.float32)
        ids, rivals = ids_and_rivals(parts, pools, images)
        assert ids.dtype == np.int32
        for image, row, others in zip(images, ids, rivals, strict=True):
            expected, expected_rivals = slow(parts, pools, image.astype(np.float64))
            assert row.tolist() == expected
            assert others.tolist() == expected_rivals
        # The same again, and the same alone or beside another image.
        turned = ids_and_rivals(parts, pools, images[::-1])
        np.testing.assert_array_equal(turned[0][::-1], ids)
        np.testing.assert_array_equal(turned[1][::-1], rivals)

    compare()


def test_words_of_a_part_add_up_one_by_one():
    drawn = arrays(5)
    rng = np.random.default_rng(5)
    images = rng.random((2, PIXELS, PIXELS, 3), np.float32)
    weights = rng.random((2, 3, PIXELS, PIXELS), np.float32) * (rng.random((2, 3, PIXELS, PIXELS)) < 0.3)
    graph, state = nnx.split(made(drawn, (1, 3, 8)))
    run_parts = jax.jit(lambda state, *seen: nnx.merge(graph, state).parts(Trunk(), *seen, 6))
    found = np.asarray(run_parts(state, images, weights.astype(np.float32)))
    assert found.shape == (2, 3, 6)
    for b, r in np.ndindex(2, 3):
        colour = np.average(
            images[b].reshape(-1, 3).astype(np.float64), axis=0, weights=weights[b, r].ravel()
        )
        above, taken, expected = np.zeros(SIZES.width), set(), []
        for _ in range(6):
            free = [m for m in range(SIZES.words) if drawn["families"][m] not in taken]
            m = best(drawn, colour @ EYES - drawn["image_mean"], above, np.zeros(SIZES.components), free, 1)
            taken.add(drawn["families"][m])
            above += drawn["vectors"][m]
            expected.append(int(drawn["ids"][m]))
        assert found[b, r].tolist() == expected


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_no_family_twice_and_no_rival_of_the_chosen_ones(seed):
    """Words alike in meaning and colour, of which any may be taken, but of each family one."""
    parts = arrays(seed, whole=True)
    images = np.random.default_rng(seed).random((2, PIXELS, PIXELS, 3), np.float32)
    family = dict(zip(parts["ids"].tolist(), parts["families"].tolist(), strict=True))
    for row, others in zip(*ids_and_rivals(parts, (1, 3, 8), images), strict=True):
        assert len({family[i] for i in row.tolist()}) == len(row)
        for i, few in zip(row.tolist(), others.tolist(), strict=True):
            assert len({family[k] for k in [i, *few]}) == 1 + len(few)


def test_of_equal_words_the_first_is_taken():
    """Every word thrice: the same vector and colour, another family."""
    parts = arrays(3)
    for name in ("vectors", "colours"):
        parts[name] = np.tile(parts[name][:14], (3, 1))[: SIZES.words]
    parts["families"] = np.arange(SIZES.words, dtype=np.int32)
    images = np.random.default_rng(3).random((2, PIXELS, PIXELS, 3), np.float32)
    ids, rivals = ids_and_rivals(parts, (1, 3, 8), images)
    for image, row, others in zip(images, ids, rivals, strict=True):
        expected, expected_rivals = slow(parts, (1, 3, 8), image.astype(np.float64))
        assert row.tolist() == expected
        assert others.tolist() == expected_rivals
    # At the top the chosen word's double is the next best, whatever the pool.
    at = parts["ids"].tolist().index(ids[0, 0])
    assert at < 14
    assert rivals[0, 0, 0] == parts["ids"][at + 14]


def test_a_pool_larger_than_what_is_left_takes_no_word_twice():
    """Families for the places and no more: the last places choose among fewer than their pool."""
    parts = arrays(4)
    parts["families"] = np.concatenate([np.arange(21), np.full(19, 20)]).astype(np.int32)
    ids, rivals = ids_and_rivals(
        parts, (1, 3, 19), np.random.default_rng(4).random((2, PIXELS, PIXELS, 3), np.float32), 20
    )
    assert made(parts, (1, 3, 19)).kinds == 21
    for row, others in zip(ids, rivals, strict=True):
        assert len(set(row.tolist())) == 21
        # Every family but the chosen one's is among as many rivals as there are others.
        family = dict(zip(parts["ids"].tolist(), parts["families"].tolist(), strict=True))
        for i, few in zip(row.tolist(), others.tolist(), strict=True):
            assert sorted(family[k] for k in [i, *few]) == list(range(21))


def test_too_few_words_for_the_places():
    with pytest.raises(InputError, match="21 different words, each chosen among 20, got 40: take a larger"):
        Pursuit(SIZES, SIDES, (1, 1, 20), PIXELS)
