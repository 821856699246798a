"""Scores, pools, percentiles and the cache of image vectors, against plain NumPy and a fake guidance."""

import hashlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spae.errors import InputError
from spae.files import cache_folder
from spae.guidance import cache
from spae.guidance.protocol import Guidance
from spae.guidance.scores import percentile, pools, scores, word_features, word_means
from spae.sources import open_source

seeds = st.integers(0, 2**32 - 1)


class Fake:
    """Vectors anyone can recompute: the mean colour of an image, a hash of a text; counts its calls."""

    name = "fake"
    templates = ("a photo of a {}", "a drawing of a {}")
    image_size = 16
    width = 3
    fingerprint = "f0"

    def __init__(self):
        self.seen = 0

    def images(self, images_bhwc):
        self.seen += 1
        return colour(np.asarray(images_bhwc))

    def regions(self, images_bhwc, sides, way="map"):
        raise NotImplementedError  # scores are of whole images

    def texts(self, texts):
        return np.stack([word_vector(text) for text in texts])


def colour(images_bhwc):
    mean = images_bhwc.mean((1, 2)) + 1e-3
    return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)


def word_vector(text):
    vector = np.frombuffer(hashlib.sha256(text.encode()).digest()[:3], np.uint8) / 255 - 0.5
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def draw(seed, b=3, v=11, f=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(b, f)).astype(np.float32), rng.normal(size=(v, f)).astype(np.float32)


@given(seeds)
@settings(max_examples=20)
def test_scores_are_the_papers(seed):
    images, words = draw(seed)
    ours = np.asarray(scores(images, words))
    for row, image in zip(ours, images, strict=True):
        raw = np.array([float(image @ word) for word in words])
        np.testing.assert_allclose(row, (raw - raw.min()) / (raw.max() - raw.min()), atol=1e-5)
    assert ours.min(axis=1).tolist() == [0] * 3
    assert ours.max(axis=1).tolist() == [1] * 3


@given(seeds)
@settings(max_examples=20)
def test_hub_correction_makes_every_word_average(seed):
    images, words = draw(seed, b=7)
    means = word_means(images, words)
    np.testing.assert_allclose(means, (images @ words.T).mean(0), atol=1e-5)
    raw = images @ words.T - means
    expected = (raw - raw.min(1, keepdims=True)) / np.ptp(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(scores(images, words, means), expected, atol=1e-5)


def test_without_spread_all_words_are_best():
    same = np.ones((4, 5), np.float32)
    np.testing.assert_array_equal(scores(same[:2], same), 1.0)


@given(seeds)
@settings(max_examples=20)
def test_pools_grow_downwards_and_are_never_empty(seed):
    rho = (0.98, 0.95, 0.9, 0.85, 0.8)
    score = np.asarray(scores(*draw(seed, v=200)))
    masks = np.asarray(jax.jit(pools, static_argnums=1)(score, rho))
    assert masks.shape == (5, 3, 200)
    for layer, threshold in enumerate(rho):
        np.testing.assert_array_equal(masks[layer], score >= np.float32(threshold))
        assert masks[layer].any(axis=-1).all()
        assert not (masks[layer - 1] & ~masks[layer]).any() or layer == 0


@pytest.mark.parametrize("rho", [(), (0.9, 1.5), (-0.1,)])
def test_wrong_thresholds(rho):
    with pytest.raises(InputError, match="threshold in"):
        pools(jnp.zeros((1, 3)), rho)


@given(seeds)
@settings(max_examples=20)
def test_percentile_counts_words(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, (3, 9)).astype(np.float32)  # with ties
    ids = rng.integers(0, 9, (3, 4))
    for got, row, chosen in zip(np.asarray(percentile(score, ids)), score, ids, strict=True):
        ranks = []
        for i in chosen:
            others = np.delete(row, i)
            ranks.append(((others < row[i]).sum() + 0.5 * (others == row[i]).sum()) / 8)
        assert got == pytest.approx(ranks, abs=1e-6)


def test_percentile_ends():
    score = jnp.asarray([[0.0, 0.5, 1.0]])
    assert percentile(score, jnp.asarray([[2]])).tolist() == [[1.0]]
    assert percentile(score, jnp.asarray([[0]])).tolist() == [[0.0]]
    assert percentile(score, jnp.asarray([[0, 1, 2]])).tolist() == [[0.0, 0.5, 1.0]]


def test_word_features_are_the_mean_over_templates():
    assert isinstance(Fake(), Guidance)
    rows = word_features(Fake(), ["dog", "park", "grass"])
    for row, word in zip(rows, ["dog", "park", "grass"], strict=True):
        expected = (word_vector(f"a photo of a {word}") + word_vector(f"a drawing of a {word}")) / 2
        np.testing.assert_allclose(row, expected, atol=1e-6)
    with pytest.raises(InputError, match="at least one word"):
        word_features(Fake(), [])


@pytest.fixture
def folder(tmp_path):
    """Images of several shapes, among them a small square, a large one and a wide one."""
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for number, shape in enumerate([(8, 8), (8, 8), (40, 40), (30, 20), (8, 8), (16, 16), (8, 8)]):
        colours = np.broadcast_to(rng.integers(0, 255, 3), (*shape, 3)).astype(np.uint8)
        Image.fromarray(colours).save(images / f"{number}.png")
    return images


def image_features(guidance, source, folder, batch_size=64):
    cache.compute_image_features(guidance, source, folder, batch_size)
    return np.asarray(cache.stored_image_features(guidance, source, folder))


def test_cache_computes_once(folder, tmp_path):
    guidance, source = Fake(), open_source(folder)
    first = image_features(guidance, source, tmp_path / "cache", batch_size=2)
    assert first.dtype == np.float32
    np.testing.assert_allclose(first, [colour(r.image[None] / np.float32(255))[0] for r in source], atol=1e-5)
    calls = guidance.seen
    again = image_features(guidance, open_source(folder), tmp_path / "cache", batch_size=3)
    np.testing.assert_array_equal(first, again)
    assert guidance.seen == calls
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".safetensors"]


class Tower(Fake):
    """A guidance that computes with JAX, and notes on how many devices."""

    devices: ClassVar[set[int]] = set()

    def __init__(self):
        super().__init__()
        self._weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
        self._embed = jax.jit(lambda weights, images: images.mean((1, 2)) @ weights)

    def images(self, images_bhwc):
        vectors = self._embed(self._weights, images_bhwc)
        self.devices.add(len(vectors.sharding.device_set))
        return vectors


def test_all_devices_of_the_process_work_and_change_nothing(folder, tmp_path, monkeypatch):
    source, every = open_source(folder), jax.local_devices()
    # Three images, a batch that two devices do not divide.
    cut = image_features(Tower(), source, tmp_path / "cut", batch_size=3)
    monkeypatch.setattr(jax, "local_devices", lambda: every[:1])
    whole = image_features(Tower(), source, tmp_path / "whole", batch_size=3)
    assert Tower.devices == {len(every), 1}
    np.testing.assert_allclose(cut, whole, atol=1e-6)


def test_cache_follows_content_and_guidance(folder, tmp_path):
    guidance = Fake()
    image_features(guidance, open_source(folder), tmp_path / "cache")
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(folder / "0.png")
    changed = image_features(guidance, open_source(folder), tmp_path / "cache")
    np.testing.assert_allclose(changed[0], 3**-0.5, atol=1e-5)
    guidance.fingerprint = "f1"
    image_features(guidance, open_source(folder), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "other"])
def test_damaged_cache_is_reported_and_made_again(damage, folder, tmp_path, capsys):
    source = open_source(folder)
    first = image_features(Fake(), source, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        content = content[:40]
    elif damage == "flip":
        content[-40] ^= 1
    else:
        content = b"not safetensors at all"
    file.write_bytes(content)
    again = image_features(Fake(), source, tmp_path / "cache")
    np.testing.assert_array_equal(first, again)
    assert "damaged cache" in capsys.readouterr().err
    np.testing.assert_array_equal(image_features(Fake(), source, tmp_path / "cache"), first)
    assert "damaged" not in capsys.readouterr().err


def test_cache_writes_nothing_when_it_fails(folder, tmp_path):
    (folder / "3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3\.png"):
        image_features(Fake(), open_source(folder), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_features_in_shards_made_by_two_and_after_a_kill(folder, tmp_path, monkeypatch):
    whole = image_features(Fake(), open_source(folder), tmp_path / "whole")
    monkeypatch.setattr(cache, "SHARD_ROWS", 3)
    source, kept = open_source(folder), tmp_path / "cache"

    class Killed(Fake):
        def images(self, images_bhwc):
            if self.seen == 2:
                raise KeyboardInterrupt
            return super().images(images_bhwc)

    with pytest.raises(KeyboardInterrupt):
        cache.compute_image_features(Killed(), source, kept, batch_size=2)
    assert len(list(kept.iterdir())) == 1
    with pytest.raises(InputError, match="one that all processes see"):
        cache.stored_image_features(Fake(), source, kept)
    first, second = Fake(), Fake()
    cache.compute_image_features(second, source, kept, batch_size=3, share=(1, 2))
    assert len(list(kept.iterdir())) == 2
    cache.compute_image_features(first, source, kept, batch_size=3, share=(0, 2))
    assert (first.seen, second.seen) == (
        1,
        2,
    )  # of three files one was there; images of two sizes in the second

    features = cache.stored_image_features(first, source, kept)
    assert features.shape == whole.shape == (7, 3)
    assert len(features) == 7
    np.testing.assert_array_equal(features, whole)
    for row in (6, 0, 3):
        np.testing.assert_array_equal(features[row], whole[row])
    np.testing.assert_allclose(features.mean(), whole.mean(axis=0), atol=1e-6)
    cache.compute_image_features(first, source, kept)
    assert first.seen == 1


class Killed(Fake):
    """Stops when it is asked for the fourth time."""

    def images(self, images_bhwc):
        if self.seen == 3:
            raise KeyboardInterrupt
        return super().images(images_bhwc)

    def texts(self, texts):
        self.seen += 1
        if self.seen == 4:
            raise KeyboardInterrupt
        return super().texts(texts)


def test_what_was_made_of_a_file_before_a_kill_is_not_made_again(folder, tmp_path, monkeypatch):
    whole = image_features(Fake(), open_source(folder), tmp_path / "whole", batch_size=1)
    monkeypatch.setattr(cache, "PART_BATCHES", 2)
    source, kept = open_source(folder), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):  # of seven images, one a batch, in the second of four parts
        cache.compute_image_features(Killed(), source, kept, batch_size=1)
    (part,) = kept.iterdir()
    with pytest.raises(InputError, match="one that all processes see"):
        cache.stored_image_features(Fake(), source, kept)
    again = Fake()
    np.testing.assert_array_equal(image_features(again, source, kept, batch_size=1), whole)
    assert again.seen == 5
    assert not part.exists()
    assert len(list(kept.iterdir())) == 1


def test_words_that_were_read_before_a_kill_are_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PART_WORDS", 2)
    words = ["dog", "park", "grass"]
    with pytest.raises(KeyboardInterrupt):  # of two parts and two templates in the second part
        cache.cached_word_features(Killed(), words, tmp_path)
    again, asked = Fake(), []
    monkeypatch.setattr(again, "texts", lambda texts: asked.extend(texts) or Fake().texts(texts))
    rows = cache.cached_word_features(again, words, tmp_path)
    assert asked == ["a photo of a grass", "a drawing of a grass"]
    np.testing.assert_array_equal(rows, word_features(Fake(), words))
    assert len(list(tmp_path.iterdir())) == 1


def test_words_are_computed_once(tmp_path, monkeypatch):
    guidance = Fake()
    rows = cache.cached_word_features(guidance, ["dog", "park"], tmp_path)
    monkeypatch.setattr(guidance, "texts", None)
    np.testing.assert_array_equal(cache.cached_word_features(guidance, ["dog", "park"], tmp_path), rows)
    with pytest.raises(TypeError):
        cache.cached_word_features(guidance, ["dog", "grass"], tmp_path)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SPAE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("SPAE_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "spae")
