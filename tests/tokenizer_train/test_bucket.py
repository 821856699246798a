"""A run whose folder is in a bucket: the same as one in a folder, and as hard to damage.

The bucket is in memory. With gcsfs, STORAGE_EMULATOR_HOST and TENSORSTORE_GCS_HTTP_URL it is the bucket spae-test of an
emulator such as fake-gcs-server; what needs a bucket that refuses is skipped then.
"""

import dataclasses
import os
import uuid
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from etils.epath import backend
from fake_bucket import OBJECTS, REFUSED, FakeGcs, HttpError, serve
from orbax.checkpoint._src.path import gcs_utils
from tensorboardX.proto.event_pb2 import Event

import spae
from spae import bundle
from spae.errors import BundleError, InputError
from spae.files import cache_folder, open_path, write_file
from spae.guidance.cache import compute_image_features, stored_image_features
from spae.sources import open_source
from spae.vocabulary import Vocabulary
from tokenizer_train import dry_run
from tokenizer_train.checkpoint import Checkpoints
from tokenizer_train.config import LossConfig, RunConfig
from tokenizer_train.loop import train
from tokenizer_train.summaries import Summaries

EMULATED = "STORAGE_EMULATOR_HOST" in os.environ
FILES = {"a.safetensors": {"a": np.arange(6, dtype=np.float32)}, "words.json": ["dog"]}


@pytest.fixture(scope="module")
def gcs() -> Iterator[None]:
    if EMULATED:
        yield
        return
    with serve() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
        patch.setattr("spae.files.find_spec", lambda name: name)
        patch.setattr(gcs_utils, "get_bucket", lambda name: None)  # asked only whether it has folders
        patch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda self, name: FakeGcs())
        yield


@pytest.fixture
def bucket(gcs, tmp_path, monkeypatch) -> Iterator[epath.Path]:
    monkeypatch.setenv("SPAE_CACHE", str(tmp_path / "cache"))
    yield open_path(f"gs://spae-test/{uuid.uuid4().hex}")
    OBJECTS.clear()
    REFUSED.clear()


@pytest.fixture
def refusing(bucket) -> set[str]:
    """Parts of the names of objects that the bucket does not give or take."""
    if EMULATED:
        pytest.skip("the emulator refuses nothing")
    return REFUSED


def state(value: float) -> dict:
    return {
        "step": jnp.int32(value),
        "w": jnp.full((40, 20), float(value)),
        "key": jax.random.key(int(value)),
    }


def names(folder: epath.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(
    bucket, linear_config, vocabulary_folder, losses, kill_after
) -> None:
    whole = train(linear_config)
    unbroken = dict(losses)
    assert sorted(unbroken) == list(range(1, 11))
    for file in vocabulary_folder.iterdir():
        write_file(bucket / "vocabulary" / file.name, file.read_bytes())
    config = dataclasses.replace(
        linear_config,
        vocabulary=dataclasses.replace(linear_config.vocabulary, path=str(bucket / "vocabulary")),
        run=dataclasses.replace(linear_config.run, output=str(bucket / "run")),
    )
    kill_after(config, 7)
    losses.clear()
    folder = train(config)
    assert sorted(losses) == [6, 7, 8, 9, 10]
    assert losses == {step: unbroken[step] for step in losses}
    assert str(folder) == str(bucket / "run" / "bundle")
    assert names(bucket / "run") == ["bundle", "checkpoints", "guidance", "tensorboard"]
    assert names(bucket / "run" / "checkpoints") == ["10", "5"]
    for name in ("params.safetensors", "vocabulary.safetensors", "words.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert spae.load(str(folder)).image_size == linear_config.tokenizer.image_size


def test_checkpoints_are_kept_set_aside_and_cleaned_up(bucket, capsys) -> None:
    folder = bucket / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        assert checkpoints.restore(state(0)) is None
        for step in (1, 2, 3, 4):
            checkpoints.save(step, state(step), {"next": step})
    assert names(folder) == ["2", "3", "4"]
    # A save that was cut off has everything but the file that is written last.
    (folder / "4" / "commit_success.txt").unlink()
    (folder / "3" / "record" / "metadata").unlink()
    with Checkpoints(folder, keep=3) as checkpoints:
        step, restored, position = checkpoints.restore(state(0))
        assert (step, position) == (2, {"next": 2})
        np.testing.assert_array_equal(restored["w"], state(2)["w"])
        checkpoints.save(3, state(3), {"next": 3})
    assert "the checkpoint of step 3 is damaged" in capsys.readouterr().out
    assert names(folder) == ["2", "3", "damaged-3"]


def test_a_bucket_that_refuses_is_no_damage(bucket, refusing, monkeypatch) -> None:
    folder = bucket / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        refusing.add("1/record")
        with pytest.raises(OSError, match="HttpError: not to you, 403"):
            checkpoints.restore(state(0))
        refusing.clear()

        def refused(*_: object, **__: object) -> None:
            raise ValueError("PERMISSION_DENIED: Error opening a driver: Error reading gs://..")

        with monkeypatch.context() as patch:
            patch.setattr(ocp.CheckpointManager, "restore", refused)
            with pytest.raises(OSError, match="PERMISSION_DENIED: Error opening"):
                checkpoints.restore(state(0))
        assert checkpoints.restore(state(0))[0] == 1


def test_after_a_save_that_was_refused_comes_one_that_is_not(bucket, refusing, monkeypatch) -> None:
    def refused(*_: object) -> None:
        raise HttpError("nor to be listed")

    folder = bucket / "checkpoints"
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        refusing.add("2/record")
        checkpoints.save(2, state(2), {})
        with monkeypatch.context() as patch:
            patch.setattr(FakeGcs, "glob", refused)
            with pytest.raises(
                OSError, match=f"cannot write a checkpoint to {folder}: HttpError: not to you, 403"
            ):
                checkpoints.wait()
        assert checkpoints.latest == 1
        refusing.clear()
        checkpoints.save(3, state(3), {})
        checkpoints.wait()
        assert checkpoints.latest == 3
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.restore(state(0))[0] == 3
        checkpoints.save(4, state(4), {})
    assert names(folder) == ["3", "4"]


def test_curves_are_written_in_objects_that_stay_small(bucket, monkeypatch) -> None:
    monkeypatch.setattr("tokenizer_train.summaries.OBJECT_BYTES", 100)
    with Summaries(bucket / "board") as summaries:
        for step in range(1, 9):
            summaries.scalars(step, {"loss": 1.0, "psnr": 2.0}, "train")
    files = sorted((bucket / "board").iterdir(), key=lambda file: int(file.name.rpartition(".")[2]))
    assert len(files) == 3
    assert steps(files) == [step for step in range(1, 9) for _ in range(2)]


def test_a_bucket_that_refuses_costs_the_curves_and_not_the_run(bucket, refusing, capsys) -> None:
    with Summaries(bucket / "board") as summaries:
        summaries.scalars(1, {"loss": 1.0}, "train")
        refusing.add("board")
        summaries.scalars(2, {"loss": 1.0}, "train")
        summaries.scalars(3, {"loss": 1.0}, "train")
        refusing.clear()
        summaries.scalars(4, {"loss": 1.0}, "train")
    assert capsys.readouterr().out.count("the curves have a gap, training goes on") == 1
    assert steps(sorted((bucket / "board").iterdir())) == [1, 4]


def steps(files: list[epath.Path]) -> list[int]:
    found = []
    for content in [file.read_bytes() for file in files]:
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            found += [event.step] if event.HasField("summary") else []
    return found


def test_a_bundle_is_there_with_its_last_file(bucket, monkeypatch) -> None:
    bundle.write(bucket / "b", {"name": "first"}, FILES)
    info, files = bundle.read(bucket / "b")
    assert (info["name"], files["words.json"]) == ("first", ["dog"])
    np.testing.assert_array_equal(files["a.safetensors"]["a"], FILES["a.safetensors"]["a"])
    bundle.write(bucket / "b", {"name": "second"}, FILES)
    assert bundle.read(bucket / "b")[0]["name"] == "second"
    written = bundle._write_through

    def cut_off(path, data):
        if path.name == "words.json":
            raise KeyboardInterrupt
        written(path, data)

    monkeypatch.setattr(bundle, "_write_through", cut_off)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(bucket / "b", {"name": "third"}, FILES)
    with pytest.raises(BundleError, match="wanted a bundle"):
        bundle.read(bucket / "b")
    monkeypatch.setattr(bundle, "_write_through", written)
    bundle.write(bucket / "b", {"name": "third"}, FILES)
    assert bundle.read(bucket / "b")[0]["name"] == "third"
    (bucket / "thesis" / "chapter1.tex").write_text("precious")
    with pytest.raises(InputError, match="something else"):
        bundle.write(bucket / "thesis", {}, FILES)


def test_a_bucket_that_refuses_is_one_line(bucket, refusing, vocabulary_folder) -> None:
    refusing.add("b/")
    with pytest.raises(OSError, match="HttpError: not to you, 403"):
        bundle.write(bucket / "b", {}, FILES)
    with pytest.raises(InputError, match=r"cannot write gs://.*/b/x: HttpError: not to you, 403"):
        write_file(bucket / "b" / "x", b"")
    with pytest.raises(BundleError, match=r"cannot read gs://.*: HttpError: not to you, 403"):
        Vocabulary.load(bucket / "b")
    with pytest.raises(BundleError, match="cannot read"):
        Vocabulary.load(bucket / "nothing")


def test_a_bucket_that_does_not_answer_is_one_line(bucket, monkeypatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise TimeoutError  # asyncio's has no message

    with Checkpoints(bucket / "checkpoints", keep=2) as checkpoints:
        checkpoints.save(1, state(1), {})
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(ocp.CheckpointManager, "save", late)
            checkpoints.save(2, state(2), {})
            with pytest.raises(OSError, match=r"cannot write a checkpoint to gs://.*: TimeoutError"):
                checkpoints.wait()
        with monkeypatch.context() as patch:
            # The first process could read it all, and this one cannot.
            patch.setattr(checkpoints, "_newest_whole", lambda like: 1)
            patch.setattr(ocp.CheckpointManager, "restore", late)
            with pytest.raises(OSError, match="TimeoutError"):
                checkpoints.restore(state(0))


def test_a_dry_run_looks_into_the_bucket(bucket, linear_config, vocabulary_folder) -> None:
    config = dataclasses.replace(
        linear_config,
        vocabulary=dataclasses.replace(linear_config.vocabulary, path=str(bucket / "vocabulary")),
    )
    with pytest.raises(InputError, match="there is no vocabulary at 'gs://"):
        dry_run.estimate(config, 1, "h100", 0.4)
    for file in vocabulary_folder.iterdir():
        write_file(bucket / "vocabulary" / file.name, file.read_bytes())
    assert dry_run._vocabulary(config.vocabulary).words == Vocabulary.load(vocabulary_folder).words


def test_features_in_a_bucket_are_read_from_a_copy(
    bucket, image_folder, hash_guidance, monkeypatch, capsys
) -> None:
    source = open_source(image_folder)
    compute_image_features(hash_guidance, source, bucket / "features")
    features = np.asarray(stored_image_features(hash_guidance, source, bucket / "features"))
    monkeypatch.setattr(hash_guidance, "images", None)
    (copy,) = [file for file in cache_folder().iterdir() if file.suffix == ".safetensors"]
    copy.write_bytes(copy.read_bytes()[:-1])
    again = stored_image_features(hash_guidance, source, bucket / "features")
    np.testing.assert_array_equal(again, features)
    np.testing.assert_array_equal(again[3], features[3])
    assert "damaged cache" in capsys.readouterr().err
    # Deleted in the bucket and made anew, they are not those of the copy.
    (bucket / "features").rmtree()
    monkeypatch.setattr(hash_guidance, "images", lambda images: np.ones((len(images), 12), np.float32))
    compute_image_features(hash_guidance, source, bucket / "features")
    anew = stored_image_features(hash_guidance, source, bucket / "features")
    np.testing.assert_array_equal(anew, np.ones((len(source), 12)))


def test_features_that_cannot_be_read_are_not_computed_again(
    bucket, refusing, image_folder, hash_guidance
) -> None:
    source = open_source(image_folder)
    with pytest.raises(InputError, match="all processes see"):
        stored_image_features(hash_guidance, source, bucket / "features")
    compute_image_features(hash_guidance, source, bucket / "features")
    refusing.add("features")
    with pytest.raises(OSError, match="not to you"):
        compute_image_features(hash_guidance, source, bucket / "features")


def test_what_is_no_bucket_for_a_run_is_refused(tmp_path, monkeypatch) -> None:
    for output in ("s3://bucket/run", "http://host/run"):
        with pytest.raises(InputError, match=r"run\.output must be a folder.* or gs://BUCKET/FOLDER, got"):
            RunConfig(output=output)
    with pytest.raises(InputError, match=r"or of a bucket \(gs://, s3://\), got http://host/bundle"):
        spae.load("http://host/bundle")
    monkeypatch.setattr("spae.files.find_spec", lambda name: None)
    for path, package in {"gs://bucket/run": "gcsfs", "s3://bucket/run": "s3fs"}.items():
        with pytest.raises(InputError, match=f"pip install {package}"):
            open_path(path)
    assert open_path(tmp_path) == epath.Path(tmp_path)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"guidance": "clip:gs://bucket/clip"}, "guidance"),
        ({"language_model": "gs://bucket/roberta-base"}, "language_model"),
        (
            {"loss": LossConfig(perceptual_weights="gs://bucket/resnet50.safetensors")},
            r"loss\.perceptual_weights",
        ),
    ],
)
def test_frozen_networks_are_read_from_this_machine(linear_config, change, name) -> None:
    with pytest.raises(InputError, match=f"{name} must be on this machine, if only in a mounted bucket, got"):
        dataclasses.replace(linear_config, **change)
