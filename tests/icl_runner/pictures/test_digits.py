"""The judge of digits: what it sees, that it learns, that a file it did not write is refused."""

import numpy as np
import pytest
import safetensors.numpy

from icl_runner.pictures import digits
from spae.errors import InputError
from spae.images import to_array


def bars(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes that a network learns in seconds: a bright row at a place that tells the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, number)
    images = generator.integers(0, 40, (number, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label, 4:24] = 255
    return images, labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    images, labels = bars(1920, 0)
    np.savez(folder / "mnist.npz", x_train=images, y_train=labels)
    return digits.train(folder, folder, epochs=2)


def test_it_learns_and_is_kept(trained):
    before = trained.read_bytes()
    folder = trained.parent
    assert digits.train(folder, folder) == trained  # no second training
    assert trained.read_bytes() == before
    images, labels = bars(300, 1)
    rgb = np.repeat(images[..., None], 3, axis=-1)
    found = digits.classify(rgb, trained)
    assert found.shape == (300,)
    # Bars two pixels apart, moved by up to two in training: neighbours are mixed up, chance is .1.
    assert (np.abs(found - labels) <= 1).mean() > 0.9
    large = np.stack([to_array(image, 64) for image in rgb])
    assert (np.abs(digits.classify(large, trained) - labels) <= 1).mean() > 0.9


def test_batches_do_not_matter(trained):
    images = np.repeat(bars(digits._BATCH_JUDGED + 3, 2)[0][..., None], 3, axis=-1)
    whole = digits.logits(images, trained)
    assert whole.shape == (digits._BATCH_JUDGED + 3, 10)
    np.testing.assert_allclose(whole[-3:], digits.logits(images[-3:], trained), rtol=1e-4, atol=1e-4)
    assert digits.classify(images[:0], trained).shape == (0,)


def test_grey_as_mnist_went_in():
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    rgb = np.repeat(images[..., None], 3, axis=-1)
    np.testing.assert_array_equal(digits.to_grey(rgb), images.astype(np.float32) / 255)
    flat = np.full((1, 64, 64, 3), (10, 200, 30), np.uint8)
    # ITU-R 601 luminance, as Pillow's mode L.
    np.testing.assert_allclose(
        digits.to_grey(flat), (0.299 * 10 + 0.587 * 200 + 0.114 * 30) / 255, atol=1 / 255
    )


def test_disturbed_digits_keep_their_ink():
    images = np.zeros((64, 28, 28), np.uint8)
    images[:, 10:14, 12:16] = 255  # far from the edge: moving loses nothing
    out = digits._disturb(images, np.random.default_rng(0))
    np.testing.assert_allclose(out.sum(axis=(1, 2)), 16)
    assert out.dtype == np.float32
    rows = [np.flatnonzero(image.any(axis=1))[0] for image in out[1::2]]
    assert set(rows) == {8, 9, 10, 11, 12}
    coarse = out[::2].reshape(-1, 14, 2, 14, 2)
    np.testing.assert_array_equal(coarse, coarse[:, :, :1, :, :1].repeat(2, axis=2).repeat(2, axis=4))


def test_bad_inputs(trained, tmp_path):
    with pytest.raises(InputError, match=r"uint8 images \(n, h, w, 3\), got uint8 \(28, 28, 3\)"):
        digits.classify(np.zeros((28, 28, 3), np.uint8), trained)
    with pytest.raises(InputError, match="got float32"):
        digits.classify(np.zeros((1, 28, 28, 3), np.float32), trained)
    with pytest.raises(InputError, match=r"cannot read .*mnist\.npz"):
        digits.train(tmp_path, tmp_path)
    np.savez(tmp_path / "mnist.npz", x_train=np.zeros((9, 28, 28), np.uint8), y_train=np.zeros(9, int))
    with pytest.raises(InputError, match="at least 128 digits"):
        digits.train(tmp_path, tmp_path)
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(InputError, match="delete it and train again"):
        digits.classify(np.zeros((1, 28, 28, 3), np.uint8), tmp_path / "noise")
    params = safetensors.numpy.load_file(trained)
    del params["out.bias"]
    safetensors.numpy.save_file(params, tmp_path / "less")
    with pytest.raises(InputError, match="other parameters"):
        digits.classify(np.zeros((1, 28, 28, 3), np.uint8), tmp_path / "less")


def test_each_content_has_a_judge_of_its_own(tmp_path, monkeypatch):
    """Of Fashion-MNIST, say, which comes in the same form."""
    monkeypatch.setattr(digits, "_fit", lambda images, labels, epochs: {"sum": images.sum(keepdims=True)})
    made = set()
    for seed in (1, 2, 1):
        images, labels = bars(128, seed)
        np.savez(tmp_path / "mnist.npz", x_train=images, y_train=labels)
        made.add(digits.train(tmp_path, tmp_path / "cache"))
    assert len(made) == 2
