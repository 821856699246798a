"""CLIP under the meaning head: trained on its features, carried by the bundle."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import spae
from spae.errors import InputError
from spae.guidance.choice import load_guidance
from spae.guidance.clip import Clip
from spae.images import to_array, to_float
from spae.sources import open_source
from tokenizer_train import loop, preparation

GOLDEN = Path(__file__).parents[1] / "golden" / "clip_hugging_face"  # random weights


def test_two_steps_and_a_bundle_that_needs_no_clip(
    linear_config, image_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("tokenizer_train.guidance.load_guidance", load_guidance)
    made, looked_up = [], []
    build, look_up = preparation.tokenizer, preparation.features
    monkeypatch.setattr(
        preparation, "features", lambda *args: looked_up.append(look_up(*args)) or looked_up[-1]
    )
    monkeypatch.setattr(
        preparation, "tokenizer", lambda *args, **more: made.append(build(*args, **more)) or made[-1]
    )
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "clip"))
    config = dataclasses.replace(
        linear_config,
        tokenizer=dataclasses.replace(linear_config.tokenizer, trunk="clip"),
        optimizer=dataclasses.replace(linear_config.optimizer, steps=2),
        guidance=f"clip:{folder}",
    )
    bundle = loop.train(config)
    source = open_source(image_folder)
    trained_on = np.asarray(looked_up[0][0][0])[:8]
    expected = np.asarray(
        Clip(folder).images(to_float(np.stack([to_array(source[i].image, 32) for i in range(8)])))
    )
    shutil.rmtree(folder)

    loaded = spae.load(bundle)
    images = [source[i].image for i in range(8)]
    ids = [pyramid.ids for pyramid in loaded.encode(images)]
    for one, pyramid in zip(ids, made[-1].encode(images), strict=True):
        assert all(map(np.array_equal, one, pyramid.ids))
    assert len({str(one) for one in ids}) > 1
    squares = np.stack([to_array(image, 32) for image in images])
    for seen in (trained_on, loaded._compiled.look(squares)):
        np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_trunk_and_guidance_are_of_one_kind(linear_config) -> None:
    for trunk, guidance in (("clip", "conse"), ("conse", "clip:folder")):
        with pytest.raises(InputError, match=r"tokenizer\.trunk must be none, or the image side of guidance"):
            dataclasses.replace(
                linear_config,
                tokenizer=dataclasses.replace(linear_config.tokenizer, trunk=trunk),
                guidance=guidance,
            )
    for trunk in ("clip", "conse"):
        with pytest.raises(
            InputError, match=r"tokenizer\.trunk must be none with guidance 'clip-jax:x'.*bundle"
        ):
            dataclasses.replace(
                linear_config,
                tokenizer=dataclasses.replace(linear_config.tokenizer, trunk=trunk),
                guidance="clip-jax:x",
            )
