"""CLIP against transformers, tokenizers and a PyTorch model in OpenAI's layout (golden/make_clip.py)."""

import gzip
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from spae.errors import InputError
from spae.guidance.choice import load_clip, load_guidance
from spae.guidance.clip import Clip
from spae.guidance.clip.tokenizer import END, START, ClipTokenizer
from spae.guidance.clip.towers import ClipImageTower
from spae.guidance.protocol import Guidance, ImageTower
from spae.guidance.templates import IMAGENET_TEMPLATES

GOLDEN = Path(__file__).parents[2] / "golden"
LAYOUTS = ("clip_hugging_face", "clip_openai")
TEXTS = [
    "a photo of a dog.",
    "The   DOG isn't\tthe cat's: 1984, café!?",
    "naïve 🙂 photo №5 __init__",
    "dog " * 40,
    "",
]


def golden_values(layout: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / layout / "golden.npz") as arrays:
        return dict(arrays)


def images() -> np.ndarray:
    y, x = np.mgrid[:32, :32] / 31.0
    first = np.stack([x, y, 0.5 + 0.5 * np.sin(12 * x * y)], -1)
    second = np.stack([0.5 + 0.5 * np.cos(30 * x), y**2, 1 - x], -1)
    return np.stack([first, second]).astype(np.float32)


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    return Clip(GOLDEN / request.param), golden_values(request.param)


@pytest.fixture
def copied(tmp_path):
    """A copy of a golden folder that a test may spoil."""
    return lambda name: Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def change(folder, edit):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    edit(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def test_its_names():
    """A path alone, as `spae-train eval --clip` has always taken it, and the spelling of configs."""
    path = GOLDEN / "clip_openai"
    expected = Clip(path).fingerprint
    for load, name in ((load_clip, str(path)), (load_clip, f"clip:{path}"), (load_guidance, f"clip:{path}")):
        assert load(name).fingerprint == expected


def test_images_are_the_originals(layout):
    clip, golden = layout
    np.testing.assert_allclose(clip.images(jnp.asarray(images())), golden["images"], atol=1e-4)


def test_regions_are_the_originals_dense_features(layout):
    clip, golden = layout
    regions = np.asarray(clip.regions(jnp.asarray(images()), (1, 2, 3, 4)))
    np.testing.assert_allclose(regions, golden["regions"], atol=1e-4)
    # The whole image is its own vector wherever its grid comes.
    swapped = np.asarray(clip.regions(jnp.asarray(images()), (2, 1)))
    np.testing.assert_allclose(swapped, regions[:, [1, 2, 3, 4, 0]], atol=1e-6)
    with pytest.raises(InputError, match="side of 1 to 4, got 5"):
        clip.regions(jnp.asarray(images()), (5,))


def test_regions_by_crops(layout):
    clip, _ = layout
    pictures = np.tile(images(), (1, 2, 2, 1))
    pictures[:, :32, 32:] = images()[::-1]
    regions = np.asarray(clip.regions(jnp.asarray(pictures), (1, 2), "crops"))
    once = np.asarray(clip.images(jnp.asarray(images())))
    np.testing.assert_allclose(regions[:, 0], clip.images(jnp.asarray(pictures)), atol=1e-5)
    np.testing.assert_allclose(regions[:, 1:], np.stack([once, once[::-1], once, once], 1), atol=1e-5)


def test_texts_are_the_originals(layout):
    clip, golden = layout
    np.testing.assert_allclose(clip.texts(TEXTS), golden["texts"], atol=1e-4)


@pytest.mark.parametrize("file", ["clip_hugging_face/tokenizer.json", "clip_openai/merges.txt"])
def test_tokenizer_is_the_originals(file):
    tokenizer = ClipTokenizer.from_file(GOLDEN / file)
    golden = golden_values(file.split("/")[0])
    for text, ids, end in zip(TEXTS, golden["ids"], golden["ends"], strict=True):
        assert tokenizer.encode(text, 20) == ids[: end + 1].tolist()


@pytest.fixture(scope="module")
def both_tokenizers():
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    file = GOLDEN / "clip_hugging_face/tokenizer.json"
    theirs = tokenizers.Tokenizer.from_file(str(file))
    theirs.no_truncation()
    return ClipTokenizer.from_file(file), theirs


# Unassigned characters may be letters in another Unicode version. A final capital sigma has two lower cases;
# ours is Python's, as in OpenAI's tokenizer.
@given(st.text(st.characters(exclude_categories=("Cs", "Cn"), exclude_characters="Σ"), max_size=40))
@settings(max_examples=300)
def test_tokenizer_agrees_on_any_text(both_tokenizers, text):
    ours, theirs = both_tokenizers
    # Special symbols written out: theirs reads them as such, ours deliberately does not.
    if START not in text and END not in text:
        assert ours.encode(text, 1000) == theirs.encode(text).ids


def test_special_symbols_in_a_text_are_text():
    tokenizer = ClipTokenizer.from_file(GOLDEN / "clip_openai/merges.txt")
    ids = tokenizer.encode(f"dog {END} dog", 100)
    assert ids.count(tokenizer.end) == 1
    assert ids[-1] == tokenizer.end


def test_zipped_merges_and_merges_as_strings(copied):
    folder = copied("clip_openai")
    plain = ClipTokenizer.from_file(folder / "merges.txt")
    zipped = folder / "bpe_simple_vocab_16e6.txt.gz"
    zipped.write_bytes(gzip.compress((folder / "merges.txt").read_bytes()))
    assert ClipTokenizer.from_file(zipped).encode(TEXTS[0], 20) == plain.encode(TEXTS[0], 20)
    read = json.loads((GOLDEN / "clip_hugging_face/tokenizer.json").read_text())
    read["model"]["merges"] = [" ".join(pair) for pair in read["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(read))
    assert ClipTokenizer.from_file(folder / "tokenizer.json").encode(TEXTS[1], 20) == plain.encode(
        TEXTS[1], 20
    )


def test_is_a_guidance(layout):
    clip, _ = layout
    assert isinstance(clip, Guidance)
    assert isinstance(clip.tower, ImageTower)
    assert (clip.image_size, clip.width) == (32, 24)
    assert len(clip.templates) == len(set(clip.templates)) == 80
    assert all(template.count("{}") == 1 for template in IMAGENET_TEMPLATES)


def test_images_of_any_size(layout):
    clip, _ = layout
    wide = np.repeat(np.repeat(images(), 2, 1), 3, 2)
    rows = np.asarray(clip.images(jnp.asarray(wide)))
    assert rows.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_text_rows_do_not_depend_on_their_neighbours(layout):
    clip, _ = layout
    together = clip.texts(TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(clip.texts([text])[0], row, atol=1e-5)


def test_tower_is_a_trunk_from_sizes_alone(layout):
    clip, golden = layout
    bare = nnx.eval_shape(lambda: ClipImageTower(clip.tower.sizes, rngs=nnx.Rngs(0)))
    graph, wanted = nnx.split(bare)
    state = nnx.state(clip.tower)
    assert jax.tree.structure(wanted) == jax.tree.structure(state)
    embed = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
    np.testing.assert_allclose(embed(state, images()), golden["images"], atol=1e-4)


def test_activation_matters_and_openais_own_files_tell_it(copied):
    folder = copied("clip_openai")
    quick = Clip(folder, activation="quick_gelu")
    plain = Clip(folder)
    assert np.abs(quick.texts(TEXTS) - plain.texts(TEXTS)).max() > 1e-3
    assert quick.fingerprint != plain.fingerprint
    (folder / "open_clip_config.json").unlink()
    # Without a config the number of heads follows from the width, and nothing tells the activation.
    with pytest.raises(InputError, match=r"put config\.json"):
        Clip(folder)
    with pytest.raises(InputError, match="0 heads"):
        Clip(folder, activation="gelu")
    names = ("input_resolution", "context_length", "vocab_size")
    change(folder, lambda tensors: tensors.update({name: np.asarray(1) for name in names}))
    with pytest.raises(InputError, match="0 heads"):  # so it knew the activation
        Clip(folder)


def test_half_precisions_are_read(copied):
    folder = copied("clip_openai")

    def to_bfloat(tensors):
        tensors.update({name: t.astype(ml_dtypes.bfloat16) for name, t in tensors.items()})

    expected = Clip(folder).images(jnp.asarray(images()))
    change(folder, to_bfloat)
    np.testing.assert_allclose(Clip(folder).images(jnp.asarray(images())), expected, atol=0.05)


@pytest.mark.parametrize("name", LAYOUTS)
def test_unknown_and_missing_tensors_are_errors(name, copied):
    folder = copied(name)
    change(folder, lambda tensors: tensors.update(extra=np.zeros(1, np.float32)))
    with pytest.raises(InputError, match="'extra'"):
        Clip(folder)
    norm = "visual.ln_pre.bias" if name == "clip_openai" else "vision_model.pre_layrnorm.bias"
    change(folder, lambda tensors: [tensors.pop("extra"), tensors.pop(norm)])
    with pytest.raises(InputError, match=r"pre_layrnorm\.bias"):
        Clip(folder)


def test_a_residual_network_is_named_as_unsupported(copied):
    folder = copied("clip_openai")
    change(folder, lambda tensors: tensors.pop("visual.class_embedding"))
    with pytest.raises(InputError, match="two transformers"):
        Clip(folder)


def test_damaged_or_missing_files(copied, tmp_path):
    with pytest.raises(InputError, match="found 0"):
        Clip(tmp_path)
    folder = copied("clip_hugging_face")
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="config of a CLIP"):
        Clip(folder)
    folder = copied("clip_openai")
    (folder / "merges.txt").write_text("#version\nno_pair\n")
    with pytest.raises(InputError, match="merges file"):
        Clip(folder)
    (folder / "merges.txt").write_text("a b\n")
    with pytest.raises(InputError, match="a tokenizer with 525 ids"):
        Clip(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json, merges\.txt"):
        Clip(folder)
    (folder / "model.safetensors").write_bytes(b"\x80\x02}.")
    with pytest.raises(InputError, match="safetensors"):
        Clip(folder)
