"""The adapter to clip-jax, with a module of the same interface in its place: the package is an extra."""

import json
import os
import shutil
import sys
import types

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spae.cli import main
from spae.errors import InputError
from spae.guidance.choice import load_clip, load_guidance
from spae.guidance.clip_jax import ClipJax
from spae.guidance.meaning_view import check_embedded
from spae.guidance.protocol import Guidance
from spae.vocabulary import View, Vocabulary

CONFIG = {
    "text_config": {
        "max_length": 12,
        "pool_type": "eos",
        "position_embedding_type": "learnt",
        "vocab_size": 9,
        "width": 6,
    },
    "vision_config": {"image_size": 16},
    "projection_dim": 6,
}
WORDS = ("[PAD]", "<s>", "</s>", "[UNK]", "a", "photo", "of", "dog", ".")


class FakeClip(flax.linen.Module):
    """clip-jax's CLIPModel as the adapter sees it: names of methods, arguments and results."""

    text_config: dict
    vision_config: dict
    projection_dim: int

    def setup(self):
        boxed = flax.linen.with_logical_partitioning
        normal = flax.linen.initializers.normal(1.0)
        shape = (self.text_config["vocab_size"], self.text_config["width"])
        self.words = self.param("words", boxed(normal, ("vocab", "embed")), shape)
        self.colours = self.param("colours", boxed(normal, (None, "embed")), (3, self.projection_dim))

    def get_image_features(self, pixel_values):
        assert pixel_values.shape[1:] == (16, 16, 3)
        return {"image_embeds": pixel_values.mean((1, 2)) @ self.colours, "vision_model_output": None}

    def get_text_features(self, input_ids, attention_mask):
        if self.text_config["position_embedding_type"] == "learnt":
            assert (
                input_ids.shape[1] == self.text_config["max_length"]
            )  # the original adds arrays of these lengths
        rows = self.words[input_ids] * attention_mask[..., None]
        return {"text_embeds": rows.sum(1), "text_model_output": None}

    def __call__(self, input_ids, pixel_values):
        self.get_image_features(pixel_values)
        return self.get_text_features(input_ids, input_ids)

    def init_weights(self, rng):
        return self.init(rng, jnp.ones((1, 12), jnp.int32), jnp.ones((1, 16, 16, 3)))


@pytest.fixture
def fake(monkeypatch):
    module = types.ModuleType("clip_jax")
    module.CLIPModel = FakeClip
    monkeypatch.setitem(sys.modules, "clip_jax", module)


@pytest.fixture
def saved(tmp_path):
    """A folder as clip-jax leaves it, with older parameters and an optimizer's state; and the parameters."""
    checkpoint = pytest.importorskip("orbax.checkpoint", reason="orbax-checkpoint is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    ids = {word: i for i, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for step in (9, 10):
        params = FakeClip(**CONFIG).init_weights(jax.random.PRNGKey(step))["params"]
        state = {"params": params, "opt_state": {"mu": jnp.ones(3)}, "step": step}
        with checkpoint.Checkpointer(checkpoint.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(tmp_path / str(step) / "default", state)
    return tmp_path, flax.linen.meta.unbox(params)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_adapter(fake, saved):
    folder, params = saved
    guidance = ClipJax(folder)
    assert isinstance(guidance, Guidance)
    assert (guidance.name, guidance.image_size, guidance.width) == ("clip-jax", 16, 6)
    colours = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    images = jnp.broadcast_to(colours[:, None, None], (2, 30, 20, 3))
    expected = unit((colours * 2 - 1) @ np.asarray(params["colours"]))
    np.testing.assert_allclose(guidance.images(images), expected, atol=1e-5)
    words = np.asarray(params["words"])
    # Start, the words, end; the second text is cut to twelve, with its end.
    sums = np.stack([words[[1, 4, 5, 2]].sum(0), words[[1, *[7] * 10, 2]].sum(0)])
    np.testing.assert_allclose(guidance.texts(["a photo", "dog " * 20]), unit(sums), atol=1e-5)
    np.testing.assert_allclose(guidance.texts(["a photo"]), unit(sums[:1]), atol=1e-5)
    rotary = {**CONFIG["text_config"], "position_embedding_type": "rotary"}
    (folder / "config.json").write_text(json.dumps(CONFIG | {"text_config": rotary}))
    np.testing.assert_allclose(ClipJax(folder).texts(["a photo"]), unit(sums[:1]), atol=1e-5)


def test_regions_are_seen_by_crops(fake, saved):
    folder, params = saved
    guidance = ClipJax(folder)
    colours = np.random.default_rng(0).random((2, 2, 2, 3)).astype(np.float32)
    images = jnp.asarray(colours.repeat(10, axis=1).repeat(10, axis=2))
    found = np.asarray(guidance.regions(images, (2,), "crops"))
    for seen, four in zip(found, colours.reshape(2, 4, 3), strict=True):
        np.testing.assert_allclose(seen, unit((four * 2 - 1) @ np.asarray(params["colours"])), atol=1e-5)
    whole = guidance.regions(images, (1, 2), "crops")[:, 0]
    np.testing.assert_allclose(whole, guidance.images(images), atol=1e-5)
    with pytest.raises(InputError, match='ask for "crops"'):
        guidance.regions(images, (2,))


def test_fingerprint_follows_the_parameters(fake, saved):
    folder, _ = saved
    newest = ClipJax(folder).fingerprint
    assert ClipJax(folder).fingerprint == newest
    (folder / "10").rename(folder / "8")
    assert ClipJax(folder).fingerprint != newest


def test_its_names(fake, saved, tmp_path, monkeypatch):
    """As commands and configs call it: by its folder, or by a name that the Hugging Face Hub's cache has."""
    hub = pytest.importorskip(
        "huggingface_hub.constants", reason="the package huggingface_hub is not installed"
    )
    folder, _ = saved
    expected = ClipJax(folder).fingerprint
    assert load_guidance(f"clip-jax:{folder}").fingerprint == expected
    assert load_clip(f"clip-jax:{folder}").fingerprint == expected

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshots = tmp_path / "hub" / "models--someone--clip" / "snapshots"
    # The hub keeps links to its files.
    shutil.copytree(folder, snapshots / "abc", copy_function=os.symlink, ignore=shutil.ignore_patterns("hub"))
    (snapshots.parent / "refs").mkdir()
    (snapshots.parent / "refs" / "main").write_text("abc")
    assert load_guidance("clip-jax:someone/clip").fingerprint == expected
    for name in ("someone/other", "no/such/folder", "gs://bucket/clip"):
        with pytest.raises(InputError, match=f"'{name}' is neither") as error:
            load_guidance(f"clip-jax:{name}")
        assert "\n" not in str(error.value)


def test_words_get_its_vectors_by_the_command(fake, saved, tmp_path, capsys, monkeypatch):
    folder, _ = saved
    rows = np.ones((2, 3), np.float32)
    views = {"meaning": View.raw(), "appearance": View.raw()}
    words = Vocabulary(("photo", "dog"), np.arange(2), rows, views, {"filters": []})
    monkeypatch.setattr("spae.frozen_lm.build_vocabulary.build", lambda *_, **__: words)
    monkeypatch.setenv("SPAE_CACHE", str(tmp_path / "cache"))
    command = ["vocab", "build", "--view", "raw", "-o", str(tmp_path / "words")]
    assert main([*command, "--embed", f"clip-jax:{folder}"]) == 0
    assert "2 words of 6 dimensions" in capsys.readouterr().out
    check_embedded(Vocabulary.load(tmp_path / "words"), ClipJax(folder))
    assert main([*command, "--embed", "clipjax"]) == 1
    assert capsys.readouterr().err.count("clip-jax:NAME_OR_PATH") == 1


def test_is_no_trunk(fake, saved):
    folder, _ = saved
    with pytest.raises(InputError, match="cannot be a tokenizer's trunk"):
        _ = ClipJax(folder).tower


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "clip_jax", None)  # makes its import fail
    with pytest.raises(InputError, match=r"pip install 'spae\[clip-jax\]'"):
        ClipJax(tmp_path)


def test_wrong_folders(fake, saved, tmp_path):
    folder, _ = saved
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected config"):
        ClipJax(tmp_path / "empty")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"projection_dim": 5}))
    with pytest.raises(InputError, match="checkpoint of the model"):
        ClipJax(folder)
    captioner = CONFIG | {"text_config": {"max_length": 12, "is_decoder": True}}
    (folder / "config.json").write_text(json.dumps(captioner))
    with pytest.raises(InputError, match="is a captioner"):
        ClipJax(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for step in ("9", "10"):
        (folder / step).rename(folder / f"gone{step}")
    with pytest.raises(InputError, match="found none"):
        ClipJax(folder)
