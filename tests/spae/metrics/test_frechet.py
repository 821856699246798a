"""The Frechet distance against SciPy's matrix root, the moments against NumPy's, Inception Score by hand."""

import numpy as np
import pytest
import scipy.linalg
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.errors import InputError
from spae.metrics.frechet import Moments, frechet_distance
from spae.metrics.inception_score import InceptionScore


def moments(x_nd: np.ndarray, batch: int = 7) -> Moments:
    result = Moments(x_nd.shape[1])
    for start in range(0, len(x_nd), batch):
        result.add(x_nd[start : start + batch])
    return result


def vectors(count: int, width: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, width)) @ generator.normal(size=(width, width)) + seed


@given(
    st.integers(2, 40),
    st.integers(1, 6),
    st.integers(1, 50),
    st.sampled_from([0.0, 1e4]),
)
@settings(max_examples=40)
def test_moments_in_batches_are_numpys(count, width, batch, offset):
    x_nd = vectors(count, width, seed=count) + offset
    result = moments(x_nd, batch)
    assert result.count == count
    np.testing.assert_allclose(result.mean, x_nd.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.covariance, np.cov(x_nd.T).reshape(width, width), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("width", [1, 8, 64])
def test_distance_is_that_of_the_matrix_root(width):
    first, second = vectors(300, width, seed=1), vectors(200, width, seed=2)
    root = scipy.linalg.sqrtm(np.cov(first.T).reshape(width, -1) @ np.cov(second.T).reshape(width, -1))
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum()
    expected += np.trace(
        np.cov(first.T).reshape(width, -1) + np.cov(second.T).reshape(width, -1) - 2 * root.real
    )
    got = frechet_distance(moments(first), moments(second))
    assert got == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(moments(second), moments(first)) == pytest.approx(got, rel=1e-8)


def test_distance_of_known_gaussians():
    # In one dimension: (m1 - m2)^2 + (s1 - s2)^2. Two points -a, a have deviation a sqrt(2) by n - 1.
    first, second = moments(np.array([[-1.0], [1.0]])), moments(np.array([[2.0], [8.0]]))
    assert frechet_distance(first, second) == pytest.approx(25 + (3 * 2**0.5 - 2**0.5) ** 2)


def test_vectors_that_come_later_count():
    first, second, x_nd = (
        moments(vectors(9, 3, seed=1)),
        moments(vectors(9, 3, seed=2)),
        vectors(5, 3, seed=3),
    )
    frechet_distance(first, second)
    first.add(x_nd)
    expected = frechet_distance(moments(np.concatenate([vectors(9, 3, seed=1), x_nd])), second)
    assert frechet_distance(first, second) == pytest.approx(expected)


def test_fewer_vectors_than_dimensions():
    """Singular covariances: no imaginary parts, no distance of a set to itself, and the trace by singular values."""
    first, second = vectors(20, 64, seed=1), vectors(30, 64, seed=2)
    assert frechet_distance(moments(first), moments(first)) == pytest.approx(0, abs=1e-3)
    # tr (C1 C2)^(1/2) is the sum of the singular values of A^T B, where C1 = A A^T and C2 = B B^T.
    a, b = ((x - x.mean(0)).T / (len(x) - 1) ** 0.5 for x in (first, second))
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum()
    expected -= 2 * np.linalg.svd(a.T @ b, compute_uv=False).sum()
    assert frechet_distance(moments(first), moments(second)) == pytest.approx(expected, rel=1e-6)


def test_distance_refuses():
    with pytest.raises(InputError, match="two vectors"):
        frechet_distance(moments(np.zeros((1, 3))), moments(np.zeros((5, 3))))
    with pytest.raises(InputError, match="one width, got 3 and 4"):
        frechet_distance(moments(np.zeros((5, 3))), moments(np.zeros((5, 4))))
    for wrong in (np.zeros(3), np.zeros((2, 4)), np.array([[0, np.nan, 0]])):
        with pytest.raises(InputError, match="finite vectors"):
            Moments(3).add(wrong)


def inception_score(logits: np.ndarray, batch: int) -> tuple[float, float]:
    score = InceptionScore(len(logits))
    for start in range(0, len(logits), batch):
        score.add(logits[start : start + batch])
    return score.result()


@pytest.mark.parametrize("count", [10, 53, 200])
def test_inception_score_is_the_formula(count):
    logits = np.random.default_rng(count).normal(size=(count, 12)) * 3
    # torch-fidelity: permute by seed 2020, cut into ten, exp of the mean divergence of each.
    permuted = logits[np.random.RandomState(2020).permutation(count)]
    scores = []
    for split in range(10):
        part = scipy.special.softmax(permuted[split * count // 10 : (split + 1) * count // 10], axis=1)
        scores.append(np.exp(np.mean([scipy.special.rel_entr(p, part.mean(axis=0)).sum() for p in part])))
    assert inception_score(logits, 7) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)


def test_inception_score_of_extremes():
    assert inception_score(np.zeros((40, 5)), 40) == pytest.approx((1, 0))
    # Sure of every image, and all classes alike often in every split: as many as there are classes.
    order = np.random.RandomState(2020).permutation(40)
    logits = np.full((40, 4), -1e4)
    logits[order, np.arange(40) % 4] = 0
    assert inception_score(logits, 9) == pytest.approx((4, 0))


def test_inception_score_refuses():
    with pytest.raises(InputError, match="at least 10 images"):
        InceptionScore(9)
    score = InceptionScore(10)
    score.add(np.zeros((6, 3)))
    with pytest.raises(InputError, match="10 images, got 6"):
        score.result()
    with pytest.raises(InputError, match="image 11"):
        score.add(np.zeros((5, 3)))
