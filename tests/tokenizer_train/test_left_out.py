"""Images and films that cannot be read: an error that names them, or others in their place, the same ones always."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from spae.errors import InputError
from spae.guidance.cache import compute_image_features, stored_image_features
from spae.sources import Source, open_source
from spae.sources.clips import Sampling, open_clips
from tokenizer_train.config import Config, DataConfig
from tokenizer_train.damage import TRIES, Damage
from tokenizer_train.data import Batches, fixed_images
from tokenizer_train.loop import train

COUNT = 30
BAD = {4: b"", 11: b"\x89PNG\r\n\x1a\nbroken", 12: b"<html>no image</html>"}
GOOD = sorted(set(range(COUNT)) - set(BAD))
CONFIG = DataConfig(train="t", validation="v", batch_size=6, flip=True, threads=3, buffer=12, damaged="skip")


@pytest.fixture
def source(tmp_path) -> Source:
    """Thirty images, the i-th grey 5 i; three cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(COUNT):
        file = folder / f"{i:02}.png"
        Image.fromarray(np.full((8, 8, 3), 5 * i, np.uint8)).save(file)
        if i in BAD:
            file.write_bytes(BAD[i])
    return open_source(folder)


def batches(source: Source, rows=range(6), features=None, **changes) -> Batches:
    if features is None:
        features = np.arange(COUNT, dtype=np.float32)[:, None]
    config = dataclasses.replace(CONFIG, **changes)
    return Batches([(source, 1.0)], [features], 8, config, 0, np.array(rows))


def numbers(batch) -> list[int]:
    found = batch["images"][:, 0, 0, 0] // 5
    np.testing.assert_array_equal(batch["features"][:, 0], found)
    return found.tolist()


def test_by_default_the_first_is_an_error_that_says_how_to_go_on(source) -> None:
    stream = batches(source, batch_size=COUNT, rows=range(COUNT), damaged="error")
    with pytest.raises(InputError, match=r"^(04|11|12)\.png: .*; or --data\.damaged skip, which goes on"):
        next(stream)
    with pytest.raises(InputError, match=r"data\.damaged is one of error, skip, not 'ignore'"):
        dataclasses.replace(CONFIG, damaged="ignore")


def test_others_take_their_places_and_each_is_named_once(source, capsys) -> None:
    stream = batches(source)
    for _ in range(8):
        epoch = [number for _ in range(5) for number in numbers(next(stream))]
        assert set(epoch) == set(GOOD)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(BAD)
    for i, line in enumerate(lines, start=1):
        assert line.startswith(f"spae-train: left out ({i} so far): ")
    assert sorted(line.split(": ")[2] for line in lines) == [f"{i:02}.png" for i in BAD]


def test_the_same_after_a_stop_and_in_any_number_of_processes(source, capsys) -> None:
    stream, shares = batches(source), [batches(source, rows) for rows in ([0, 5], [1, 2, 3], [4])]
    whole = [next(stream)["images"] for _ in range(12)]
    for images in whole:
        together = np.concatenate([next(share)["images"] for share in shares])
        np.testing.assert_array_equal(together[[0, 2, 3, 4, 5, 1]], images)
    resumed = batches(source)
    resumed.set_state({"batches": 7})
    for images in whole[7:]:
        np.testing.assert_array_equal(next(resumed)["images"], images)


def test_without_features_it_is_not_read_at_all(source, tmp_path, capsys) -> None:
    """A film's middle clip decides, wherever training would have read."""
    features = np.arange(COUNT, dtype=np.float32)[:, None]
    features[7] = np.nan
    stream = batches(source, features=features)
    seen = {number for _ in range(10) for number in numbers(next(stream))}
    assert seen == set(GOOD) - {7}
    assert "07.png could not be read when its features were computed" in capsys.readouterr().err
    features[list(BAD)] = np.nan
    stream = batches(source, features=features, damaged="error", batch_size=COUNT, rows=range(COUNT))
    with pytest.raises(InputError, match=r"could not be read when its .*; or --data\.damaged skip"):
        next(stream)


def test_a_folder_that_is_gone_is_no_damage_to_a_few(source, capsys) -> None:
    stream = batches(source)
    next(stream)
    for file in source.files:
        file.unlink()
    with pytest.raises(
        InputError, match=rf"{TRIES} images, one after the other, cannot be read: .*No such file"
    ):
        list(stream)  # endless, but for that


def test_validation_takes_the_next(source, capsys) -> None:
    with pytest.raises(InputError, match=r"04\.png"):
        fixed_images(source, COUNT, 8, Damage("error"))
    found = fixed_images(source, COUNT, 8, Damage("skip"))[:, 0, 0, 0] // 5
    assert found.tolist() == [{4: 5, 11: 13, 12: 13}.get(i, i) for i in range(COUNT)]


def test_films_that_are_damaged_or_too_short(tmp_path, capsys) -> None:
    for film, length in (("whole", 6), ("short", 3), ("other", 6)):
        (tmp_path / film).mkdir()
        for t in range(length):
            Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(tmp_path / film / f"{t}.png")
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    clips = open_clips(tmp_path, 8, Sampling(frames=4))
    assert clips.keys == ["cut.mp4", "other", "short", "whole"]
    stream = Batches([(clips, 1.0)], [np.arange(4, dtype=np.float32)[:, None]], 8, CONFIG, 0, np.arange(6))
    seen = {float(number) for _ in range(6) for number in next(stream)["features"][:, 0]}
    assert seen == {1.0, 3.0}
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "short has 3 frames, wanted 4" in said
    assert "cut.mp4" in said


def test_features_without_them(source, tmp_path, hash_guidance, capsys) -> None:
    with pytest.raises(InputError, match=r"04\.png"):
        compute_image_features(hash_guidance, source, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    told: list[InputError] = []
    for _ in range(2):  # of what is on disk nothing is told again
        compute_image_features(hash_guidance, source, tmp_path / "cache", batch_size=4, left_out=told.append)
        assert sorted(str(error)[:6] for error in told) == [f"{i:02}.png" for i in BAD]
    features = stored_image_features(hash_guidance, source, tmp_path / "cache")
    assert np.flatnonzero(np.isnan(features).any(axis=1)).tolist() == list(BAD)
    np.testing.assert_allclose(features.mean(), np.asarray(features)[GOOD].mean(axis=0), atol=1e-6)
    source.files[0].unlink()
    shifted = open_source(source.files[0].parent)  # now 11 and 12 are a batch of two
    with pytest.raises(InputError, match=r"2 images in a row cannot be read, up to 12\.png: are they still"):
        compute_image_features(hash_guidance, shifted, tmp_path / "other", batch_size=2, left_out=told.append)
    assert not (tmp_path / "other").exists()


def test_a_run_goes_on_without_them_to_the_same_losses(
    linear_config: Config, unvalidated, image_folder, tmp_path, losses, capsys
) -> None:
    folder = tmp_path / "images"
    for number, file in enumerate(sorted(image_folder.rglob("*.png"))):
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        (folder / file.parent.name / file.name).write_bytes(content[:60] if number in (0, 9) else content)

    def config(name: str, steps: int, damaged: str) -> Config:
        return dataclasses.replace(
            linear_config,
            data=dataclasses.replace(
                linear_config.data, train=str(folder), validation=str(folder), damaged=damaged
            ),
            loss=dataclasses.replace(linear_config.loss, hub_correction=True),
            optimizer=dataclasses.replace(linear_config.optimizer, steps=steps),
            run=dataclasses.replace(linear_config.run, output=str(tmp_path / name), checkpoint_every=2),
        )

    with pytest.raises(InputError, match=r"class0/0\.png: .* --data\.damaged skip"):
        train(config("broken", 4, "error"))
    train(config("unbroken", 4, "skip"))
    unbroken = dict(losses)
    assert len(unbroken) == 4
    assert all(np.isfinite(list(values.values())).all() for values in unbroken.values())
    train(config("broken", 2, "skip"))
    losses.clear()
    train(config("broken", 4, "skip"))
    assert losses == {step: unbroken[step] for step in (3, 4)}
    assert "left out (2 so far): class1/3.png: the image is damaged" in capsys.readouterr().err
