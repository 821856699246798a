"""Nearest centroid: against a slow loop, on separable, useless and tied vectors; episodes never leak."""

import numpy as np
import pytest

from spae.errors import InputError
from tokenizer_train.evaluation.few_shot import draw_episodes, mean_of_words, nearest_centroid


def test_episodes_hold_distinct_classes_and_images() -> None:
    labels = np.repeat(np.arange(7), [1, 2, 3, 6, 6, 6, 6])
    episodes = draw_episodes(labels, ways=4, shots=5, episodes=50, seed=0)
    for episode in episodes:
        assert len(set(episode.ravel())) == 24
        assert [len(set(labels[row])) for row in episode] == [1] * 4
        assert len(set(labels[episode[:, 0]])) == 4
    assert (episodes == draw_episodes(labels, 4, 5, 50, seed=0)).all()
    assert (episodes != draw_episodes(labels, 4, 5, 50, seed=1)).any()
    with pytest.raises(InputError, match="5 classes of at least 6 images, got 4"):
        draw_episodes(labels, ways=5, shots=5, episodes=1, seed=0)


def test_separable_and_useless_vectors() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 20)
    episodes = draw_episodes(labels, ways=5, shots=1, episodes=400, seed=0)
    separable = np.eye(10)[labels] + 0.01 * generator.normal(size=(200, 10))
    assert nearest_centroid(separable, episodes).mean == 1
    noise = nearest_centroid(generator.normal(size=(200, 10)), episodes)
    assert abs(noise.mean - 0.2) < 0.04
    assert noise.mean - 0.2 < 3 * noise.interval
    # All images alike: every class ties, so exactly chance.
    assert nearest_centroid(np.ones((200, 3)), episodes).mean == pytest.approx(0.2)


def test_against_a_loop() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(6), 8)
    features = generator.normal(size=(48, 5)) + 0.7 * labels[:, None]
    episodes = draw_episodes(labels, ways=3, shots=3, episodes=30, seed=2)
    scores = []
    for episode in episodes:
        hits = 0
        for query_class in range(3):
            similarities = []
            for support_class in range(3):
                centroid = np.zeros(5)
                for i in episode[support_class][:3]:
                    centroid += features[i] / np.sqrt((features[i] ** 2).sum())
                query = features[episode[query_class][3]]
                similarities.append(query @ centroid / np.sqrt((centroid**2).sum()))
            hits += int(np.argmax(similarities) == query_class)
        scores.append(hits / 3)
    result = nearest_centroid(features, episodes)
    assert result.mean == pytest.approx(np.mean(scores))
    assert result.interval == pytest.approx(1.96 * np.std(scores, ddof=1) / np.sqrt(30))


def test_directions_are_seen_from_the_origin() -> None:
    """Bytes, too: of pixels nothing is made for all images at once."""
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 6)
    pixels = generator.integers(0, 256, (24, 30), dtype=np.uint8)
    episodes = draw_episodes(labels, ways=3, shots=2, episodes=40, seed=0)
    origin = pixels.mean(axis=0)
    centred = nearest_centroid(pixels.astype(float) - origin, episodes)
    assert nearest_centroid(pixels, episodes, origin) == centred
    assert nearest_centroid(pixels, episodes) != centred


def test_mean_of_words() -> None:
    words = np.arange(12.0).reshape(4, 3)
    np.testing.assert_allclose(mean_of_words(words, np.array([[0, 2], [3, 3]])), [[3, 4, 5], [9, 10, 11]])
