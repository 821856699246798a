"""Training on clips: the stream of clips, their guidance features, and the tiny variant of configs/video128.py."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn
from flax import nnx
from PIL import Image

import spae
from spae.autoencoder import Autoencoder
from spae.errors import InputError
from spae.guidance.cache import compute_image_features, stored_image_features
from spae.sources.clips import Clips, Sampling, open_clips
from spae.tokenizer import Tokenizer
from spae.vocabulary import Vocabulary
from tokenizer_train.cli import main
from tokenizer_train.config import DataConfig
from tokenizer_train.config_file import load_config
from tokenizer_train.damage import Damage
from tokenizer_train.data import Batches, fixed_images, open_data

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "video128.py"
FILMS, LENGTH, SIZE = 6, 9, 32


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """Two classes of squares that move to the right or down; blue tells the film, red the frame."""
    folder = tmp_path_factory.mktemp("films")
    for film in range(FILMS):
        kind = ("right", "down")[film % 2]
        (folder / kind / f"film{film}").mkdir(parents=True)
        for t in range(LENGTH):
            frame = np.zeros((SIZE, SIZE + 8, 3), np.uint8)
            frame[..., 0], frame[..., 2] = 20 * t, 40 * film
            frame[8:16, 4 + 2 * t : 12 + 2 * t, 1] = 255
            Image.fromarray(frame if kind == "right" else frame[:, :SIZE].swapaxes(0, 1)).save(
                folder / kind / f"film{film}" / f"{t}.png"
            )
    return folder


def clips(films: Path, **sampling) -> Clips:
    return open_clips(films, SIZE, Sampling(**{"frames": 4, **sampling}))


def stream(films: Path, seed: int = 0, **changes) -> Batches:
    config = DataConfig(train="-", validation="-", **{"batch_size": 3, "threads": 2, "buffer": 4, **changes})
    source = clips(films)
    features = np.array([int(key[-1]) for key in source.keys], np.float32)[:, None]
    return Batches([(source, 1.0)], [features], SIZE, config, seed, np.arange(config.batch_size))


def film_and_start(clip: np.ndarray) -> tuple[int, int]:
    return round(float(np.median(clip[0, ..., 2])) / 40), round(float(np.median(clip[0, ..., 0])) / 20)


def test_every_film_once_an_epoch_from_places_of_the_seed(films):
    batches = stream(films, flip=False)
    starts: dict[int, set[int]] = {film: set() for film in range(FILMS)}
    for _ in range(8):
        seen = []
        for batch in (next(batches), next(batches)):
            assert batch["images"].shape == (3, 4, SIZE, SIZE, 3)
            for clip, feature in zip(batch["images"], batch["features"], strict=True):
                film, start = film_and_start(clip)
                assert feature[0] == film
                frames = [round(float(np.median(frame[..., 0])) / 20) for frame in clip]
                assert frames == list(range(start, start + 4))
                seen.append(film)
                starts[film].add(start)
        assert sorted(seen) == list(range(FILMS))
    assert all(len(found) > 1 for found in starts.values())
    assert set.union(*starts.values()) <= set(range(LENGTH - 3))

    again, other = stream(films, flip=False), stream(films, seed=1, flip=False)
    first = next(stream(films, flip=False))["images"]
    np.testing.assert_array_equal(next(again)["images"], first)
    assert not np.array_equal(next(other)["images"], first)


def test_the_stream_goes_on_where_it_was(films):
    batches = stream(films)
    for _ in range(3):
        next(batches)
    position = json.loads(json.dumps(batches.get_state()))
    wanted = [next(batches)["images"] for _ in range(3)]
    other = stream(films)
    other.set_state(position)
    for images in wanted:
        np.testing.assert_array_equal(next(other)["images"], images)


def test_a_flip_is_of_the_whole_clip_from_left_to_right(films):
    straight, flipped = stream(films, flip=False), stream(films)
    mirrored = 0
    for _ in range(6):
        for a, b in zip(next(straight)["images"], next(flipped)["images"], strict=True):
            if not np.array_equal(a, b):
                np.testing.assert_array_equal(a[:, :, ::-1], b)
                mirrored += 1
    assert 0 < mirrored < 18


def test_validation_reads_the_middle(films):
    found = fixed_images(clips(films), 3, SIZE, Damage("error"))
    assert found.shape == (3, 4, SIZE, SIZE, 3)
    assert {film_and_start(clip)[1] for clip in found} == {3}


def test_features_of_a_clip_are_the_mean_over_its_frames(films, tmp_path, hash_guidance):
    source = clips(films, stride=2)
    compute_image_features(hash_guidance, source, tmp_path, batch_size=5)
    found = np.asarray(stored_image_features(hash_guidance, source, tmp_path))
    for i in range(FILMS):
        vectors = hash_guidance.images(source[i].image.astype(np.float32) / 255)
        np.testing.assert_allclose(found[i], vectors.mean(axis=0), atol=1e-5)


def test_what_is_read_is_what_the_config_says(films):
    config = load_config(CONFIG, "tiny")
    data = dataclasses.replace(config.data, stride=2, fps=5.0)
    source = open_data(str(films), None, config.tokenizer, data)
    assert isinstance(source, Clips)
    assert source.sampling == Sampling(frames=4, stride=2, fps=5.0)
    with pytest.raises(InputError, match="leave it out for clips"):
        open_data(str(films), "train", config.tokenizer, data)
    images = load_config(CONFIG.with_name("imagenet128.py"), "tiny")
    with pytest.raises(InputError, match=r"data\.stride, data\.fps must be left alone"):
        dataclasses.replace(images, data=dataclasses.replace(images.data, stride=2))
    with pytest.raises(InputError, match=r"wanted data\.fps above 0, got 0"):
        dataclasses.replace(data, fps=0.0)


def train(films: Path, vocabulary_folder: Path, output: Path, *changes: str) -> Tokenizer:
    arguments = [str(CONFIG), "--variant", "tiny", "--vocabulary.path", str(vocabulary_folder)]
    arguments += ["--data.train", str(films), "--data.validation", str(films), "--run.output", str(output)]
    arguments += [
        "--optimizer.steps",
        "3",
        "--optimizer.warmup-steps",
        "1",
        "--optimizer.cooldown-steps",
        "0",
    ]
    assert main([*arguments, *changes]) == 0
    return spae.load(output / "bundle")


def test_the_tiny_variant_trains_with_every_loss(films, vocabulary_folder, tmp_path, hash_guidance, capsys):
    tokenizer = train(
        films, vocabulary_folder, tmp_path / "run", "--loss.semantic", "1", "--run.log-every", "1",
        "--loss.perceptual-network", "stlpips-alex", "--data.stride", "2",
    )  # fmt: skip
    lines = [line for line in capsys.readouterr().out.splitlines() if " train " in line]
    assert len(lines) == 3
    for name in ("semantic", "perceptual", "adversarial", "discriminator", "words/4"):
        assert f"  {name} " in lines[-1]
    assert tokenizer.frames == 4
    assert tokenizer.info["training"]["config"]["data"]["stride"] == 2
    clip = clips(films, stride=2)[0].image
    pyramid = tokenizer.encode(clip)
    assert [ids.shape for ids in pyramid.ids] == [(1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)]
    assert tokenizer.decode(pyramid).shape == (4, SIZE, SIZE, 3)


def test_a_run_begins_with_the_inflated_image_bundle(films, vocabulary_folder, tmp_path, capsys):
    config = load_config(CONFIG, "tiny").tokenizer
    images = dataclasses.replace(config, frames=1, temporal_downsamplings=0, pyramid=(1, 2, 4, 4))
    vocabulary = Vocabulary.load(vocabulary_folder)
    model = drawn(lambda rngs: Autoencoder(images, 4, 8, rngs=rngs), 3)
    Tokenizer(images, vocabulary, model).save(tmp_path / "images")
    begun = train(
        films, vocabulary_folder, tmp_path / "run", "--run.initial", str(tmp_path / "images"),
        "--optimizer.learning-rate", "1e-12", "--loss.adversarial", "0",
    )  # fmt: skip
    assert f"beginning with the weights of {tmp_path / 'images'}" in capsys.readouterr().out
    assert begun.info["training"]["config"]["run"]["initial"] == "images"
    kernel = np.asarray(begun.parameters["encoder"]["stem"]["kernel"][...])
    np.testing.assert_allclose(kernel[1], model.encoder.stem.kernel[...], atol=1e-6)
    np.testing.assert_allclose(kernel[[0, 2]], 0, atol=1e-6)

    image = np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32)
    network = nnx.merge(begun._graph, begun.parameters)
    encode = nnx.jit(lambda encoder, images: encoder(images)[0])
    z_bthwc, z_bhwc = (
        encode(network.encoder, np.repeat(image[:, None], 4, axis=1)),
        encode(model.encoder, image),
    )
    for time in range(2):
        np.testing.assert_allclose(z_bthwc[:, time], z_bhwc, atol=1e-5)
