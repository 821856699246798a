"""A data set to words: every image is in the words once or in the list of bad ones once, whatever stops a run and
whoever does the parts; and a folder takes one job only."""

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from drawn import drawn
from fake_tokenizer import FakeTokenizer, load_fake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import spae
from spae import bundle as bundle_files
from spae import progress
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.bulk import local, on_ray
from spae.bulk.folder import Folder
from spae.bulk.job import Job, open_job
from spae.bulk.part import AHEAD, BATCH, read_ahead
from spae.bulk.run import run
from spae.cli import main
from spae.errors import BundleError, InputError
from spae.sources import open_source
from spae.sources.folder import FolderSource
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary

HERE = Path(__file__).parent
BAD = ("empty", "truncated", "other")


def picture(number: int, kind: str = "good") -> bytes:
    """An encoded image of its own, or what is none."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {
        "good": buffer.getvalue(),
        "empty": b"",
        "truncated": buffer.getvalue()[:60],
        "other": b"GIF89a, of course",
    }[kind]


def write_folder(folder: Path, kinds: list[str]) -> Path:
    for number, kind in enumerate(kinds):
        path = folder / f"class{number // 3:02}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, kind))
    return folder


def write_tar(file: Path, kinds: list[str]) -> Path:
    with tarfile.open(file, "w") as archive:
        for number, kind in enumerate(kinds):
            member, data = tarfile.TarInfo(f"class{number // 3:02}/{number:03}.png"), picture(number, kind)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def fake_job(path: Path, part_size: int, **change) -> Job:
    """A job for the tokenizer without networks."""
    fields = {"layers": 3, "format": "jsonl", "bundle_sha256": "0", "source": open_source(path, 16)}
    return Job(path=str(path), bundle="default", part_size=part_size, **{**fields, **change})


def rows(output: Path) -> list[dict]:
    return [
        json.loads(line)
        for file in sorted(output.glob("part-*.jsonl"))
        for line in file.read_text("utf-8").splitlines()
    ]


def bad_images(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "bad.jsonl").read_text("utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(spae, "load", load_fake)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    """A small tokenizer with networks, on disk."""
    config = AutoencoderConfig(
        image_size=8, pyramid=(1, 2, 4), filters=4, multipliers=(1,), blocks=1, downsamplings=1
    )
    embeddings = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcde" for b in "klmnop")
    tokenizer = Tokenizer(
        config,
        Vocabulary(words, np.arange(30), embeddings, views, {}),
        drawn(lambda rngs: Autoencoder(config, 4, 8, rngs=rngs)),
    )
    folder = tmp_path_factory.mktemp("bulk") / "bundle"
    tokenizer.save(folder)
    return str(folder)


@pytest.mark.usefixtures("fake")
def test_a_log_is_told_how_far_it_has_come(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    job = fake_job(write_folder(tmp_path / "in", ["good"] * 5), 2)
    run(job, tmp_path / "words")
    lines = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert list(dict.fromkeys(lines)) == ["images 2/5", "images 4/5"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(("good", "good", *BAD)), min_size=1, max_size=40),
    part_size=st.integers(1, 45),
    write=st.sampled_from((write_folder, write_tar)),
    format=st.sampled_from(("jsonl", "parquet")),
)
def test_every_image_is_in_the_words_or_in_the_bad_ones(kinds, part_size, write, format, fake):
    with tempfile.TemporaryDirectory() as temporary:
        images = write(Path(temporary) / "images.tar", kinds)
        job = fake_job(images, part_size, format=format)
        output = Path(temporary) / "words"
        done = run(job, output)
        if format == "jsonl":
            found = rows(output)
        else:
            parquet = pytest.importorskip("pyarrow.parquet")
            found = [
                row
                for file in sorted(output.glob("*.parquet"))
                for row in parquet.read_table(file).to_pylist()
            ]
        bad = bad_images(output)
        good = [kind == "good" for kind in kinds]
        keys = job.source.keys
        assert [row["key"] for row in found] == [key for key, fine in zip(keys, good, strict=True) if fine]
        assert [one["key"] for one in bad] == [key for key, fine in zip(keys, good, strict=True) if not fine]
        assert (done.images, done.bad) == (len(found), len(bad))
        assert done.parts == done.parts_written == -(-len(kinds) // part_size)
        assert all(one["reason"] for one in bad)
        assert not list(output.rglob(".*.part"))


def test_words_are_those_of_the_tokenizer(tmp_path, bundle):
    images = write_folder(tmp_path / "images", ["good"] * (BATCH + 3))
    (images / "class00" / "001.txt").write_text("a caption: häßlich\n")
    run(open_job(images, bundle, layers=2), tmp_path / "words")
    tokenizer = spae.load(bundle)
    found = {row["key"]: row for row in rows(tmp_path / "words")}
    assert len(found) == BATCH + 3
    for record in list(open_source(images))[:4]:
        pyramid = tokenizer.encode(record.image)
        row = found[record.key]
        assert row["layers"] == pyramid.json(2)
        assert row["text"] == pyramid.text(2)
        assert row["label"] == record.label
    assert found["class00/001.png"]["caption"] == "a caption: häßlich"


def test_parquet_and_jsonl_hold_the_same(tmp_path, bundle):
    parquet = pytest.importorskip("pyarrow.parquet")
    images = write_folder(tmp_path / "images", ["good", "empty", "good", "other"])
    run(open_job(images, bundle, part_size=3), tmp_path / "a")
    run(open_job(images, bundle, part_size=3, format="parquet"), tmp_path / "b")
    tables = [parquet.read_table(file) for file in sorted((tmp_path / "b").glob("*.parquet"))]
    assert [row for table in tables for row in table.to_pylist()] == rows(tmp_path / "a")
    # A part without any good image has its columns all the same.
    assert tables[1].num_rows == 0
    assert tables[1].schema == tables[0].schema
    assert bad_images(tmp_path / "a") == bad_images(tmp_path / "b")


def test_a_finished_folder_is_left_as_it_is(tmp_path, fake, monkeypatch):
    job = fake_job(write_folder(tmp_path / "images", ["good", "empty", "good"]), 2)
    run(job, tmp_path / "words")
    before = contents(tmp_path / "words")
    monkeypatch.setattr("spae.bulk.folder.write_file", lambda *_: pytest.fail("written again"))
    monkeypatch.setattr(spae, "load", lambda *_: pytest.fail("loaded for nothing"))
    done = run(job, tmp_path / "words")
    assert (done.images, done.bad, done.parts_written, done.images_per_s) == (2, 1, 0, None)
    assert contents(tmp_path / "words") == before


@pytest.mark.parametrize("kill_at", [1, 2, 3, 5, 8, 10])
def test_killed_at_any_file_and_resumed(tmp_path, fake, kill_at):
    """A whole run renames ten files: bulk.json, a part and its note four times, bad.jsonl."""
    kinds = ["good", "truncated", "good", "good", "empty", "good", "good"]
    job = fake_job(write_folder(tmp_path / "images", kinds), 2)
    run(job, tmp_path / "unbroken")
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(HERE)!r})
import fake_tokenizer, spae
from spae.bulk.job import Job
from spae.bulk.run import run
from spae.sources import open_source
spae.load = fake_tokenizer.load_fake
replace, calls = os.replace, []
def dying(*arguments):
    calls.append(arguments)
    if len(calls) == {kill_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*arguments)
os.replace = dying
run(Job(path={job.path!r}, source=open_source({job.path!r}, 16), bundle="default", bundle_sha256="0", layers=3,
        format="jsonl", part_size=2), sys.argv[1])
"""
    output = tmp_path / "broken"
    done = subprocess.run([sys.executable, "-c", script, str(output)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in output.rglob(".*.part")] != []
    missing = 4 - len(list(output.glob("done/*.json")))
    assert run(job, output).parts_written == missing
    assert contents(output) == contents(tmp_path / "unbroken")


def test_images_that_are_gone_for_a_while_are_not_noted_as_bad(tmp_path, fake):
    images = write_folder(tmp_path / "images", ["good"] * 20)
    job = fake_job(images, 20)
    job.identity()  # is looked at when the run begins
    images.rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"16 images in a row cannot be opened, .* the same command goes on"):
        run(job, tmp_path / "words")
    (tmp_path / "away").rename(images)
    done = run(job, tmp_path / "words")
    assert (done.images, done.bad) == (20, 0)
    # A few are bad images, as before.
    for file in sorted(images.glob("*/*"))[:15]:
        file.unlink()
    assert run(job, tmp_path / "others").bad == 15


@pytest.mark.parametrize("damage", ["cut", "lost", '{"part"', "[1]", "null", '{"part": 1}', "no list"])
def test_a_damaged_part_is_done_again(tmp_path, fake, damage):
    job = fake_job(write_folder(tmp_path / "images", ["good"] * 5), 2)
    output = tmp_path / "words"
    run(job, output)
    before = contents(output)
    part = output / job.file_name(1)
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-5])
    elif damage == "lost":
        part.unlink()
    else:
        # The note of the part.
        note = json.dumps({"bytes": part.stat().st_size, "bad": 0}) if damage == "no list" else damage
        (output / "done" / "00001.json").write_text(note)
    assert run(job, output).parts_written == 1
    assert contents(output) == before


def test_a_full_disk_is_one_line_and_no_half_part(tmp_path, fake, monkeypatch):
    job = fake_job(write_folder(tmp_path / "images", ["good"] * 5), 2)
    output = tmp_path / "words"
    write = Path.write_bytes

    def full(path, data):
        if "part-00001" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space left"):
            run(job, output)
    assert [path.name for path in output.glob("*part*")] == [job.file_name(0)]
    assert run(job, output).parts_written == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 2}, "begun with layers 3, this is 2"),
        ({"format": "parquet"}, "begun with files jsonl"),
        ({"bundle_sha256": "1"}, "begun with bundle_sha256 0"),
        ({"part_size": 3}, "begun with part_size 2"),
    ],
)
def test_another_job_is_refused(tmp_path, fake, change, message):
    images = write_folder(tmp_path / "images", ["good"] * 3)
    run(fake_job(images, 2), tmp_path / "words")
    before = contents(tmp_path / "words")
    with pytest.raises(InputError, match=message):
        run(dataclasses.replace(fake_job(images, 2), **change), tmp_path / "words")
    (images / "class00" / "000.png").write_bytes(picture(77) + b"more")
    with pytest.raises(InputError, match="begun with source_sha256"):
        run(fake_job(images, 2), tmp_path / "words")
    assert contents(tmp_path / "words") == before


def test_what_is_no_folder_of_ours_is_refused(tmp_path, fake):
    images = write_folder(tmp_path / "images", ["good"] * 3)
    job = fake_job(images, 2)
    with pytest.raises(InputError, match="something else"):
        run(job, images)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="something else"):
        run(job, tmp_path / "file")
    with pytest.raises(InputError, match="mount the bucket"):
        run(job, "gs://bucket/words")
    with Folder(tmp_path / "words", job), pytest.raises(InputError, match="another spae bulk"):
        run(job, tmp_path / "words")
    (tmp_path / "words" / "bulk.json").write_text("[]")
    with pytest.raises(InputError, match="not as spae bulk wrote it"):
        run(job, tmp_path / "words")


def test_jobs_are_checked_when_they_are_opened(tmp_path, bundle, monkeypatch):
    images = write_folder(tmp_path / "images", ["good"])
    with pytest.raises(InputError, match="wanted part files in jsonl or parquet, got 'csv'"):
        open_job(images, bundle, format="csv")
    with pytest.raises(InputError, match="layers"):
        open_job(images, bundle, layers=4)
    with pytest.raises(InputError, match="1 image a part"):
        open_job(images, bundle, part_size=0)
    with pytest.raises(InputError, match="mount the bucket"):
        open_job("gs://bucket/train-*.tar", bundle)
    with pytest.raises(BundleError, match="wanted a bundle"):
        open_job(images, str(tmp_path))
    monkeypatch.setattr("spae.bulk.job.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        open_job(images, bundle, format="parquet")


def test_tokenizers_of_clips_are_refused(tmp_path, bundle, monkeypatch):
    config = {"pyramid": [[1, 1, 1], [2, 2, 2]], "image_size": 8}
    monkeypatch.setattr("spae.bulk.job.bundle.read", lambda name, kind: ({"config": config}, {}))
    with pytest.raises(InputError, match="is of clips"):
        open_job(write_folder(tmp_path / "images", ["good"]), bundle)


def test_bundles_of_connectors_are_refused(tmp_path):
    bundle_files.write(tmp_path / "linear", {"kind": "connector", "config": {"kind": "linear"}}, {})
    with pytest.raises(
        BundleError, match=r"wanted the bundle of a tokenizer, .* is a connector's: spae\.connector"
    ):
        open_job(write_folder(tmp_path / "images", ["good"]), str(tmp_path / "linear"))


def test_jobs_do_not_depend_on_the_working_folder(tmp_path, bundle, monkeypatch):
    write_tar(tmp_path / "a.tar", ["good"])
    monkeypatch.chdir(tmp_path)
    job = open_job("*.tar", os.path.relpath(bundle))
    assert job.path == str(tmp_path / "*.tar")
    assert job.source.files == [tmp_path / "a.tar"]
    assert Path(job.bundle).is_absolute()
    assert open_job("*.tar").bundle == "default"


def test_reading_ahead_is_bounded_and_in_order(tmp_path):
    opened = []

    class Counting(FolderSource):
        def __getitem__(self, index):
            opened.append(index)
            return super().__getitem__(index)

    source = Counting(write_folder(tmp_path, ["good"] * 3), 16)
    before = set(threading.enumerate())
    with ThreadPoolExecutor(2) as pool:
        records = read_ahead(source, (index % 3 for index in range(10 * AHEAD)), FakeTokenizer().square, pool)
        for taken in range(1, 40):
            assert next(records).key == source.key((taken - 1) % 3)
            assert len(opened) <= taken + AHEAD
        records.close()
    assert len(opened) < 2 * AHEAD
    assert set(threading.enumerate()) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes as a file's name")
def test_a_name_that_is_not_utf8_is_bad(tmp_path, fake):
    images = write_folder(tmp_path / "images", ["good"])
    (images / os.fsdecode(b"caf\xe9.png")).write_bytes(picture(5))
    run(fake_job(images, 2), tmp_path / "words")
    (bad,) = bad_images(tmp_path / "words")
    assert bad == {"key": "caf\\udce9.png", "reason": "its name is not UTF-8: rename it"}
    assert len(rows(tmp_path / "words")) == 1


def test_command(tmp_path, bundle, capsys):
    images = write_folder(tmp_path / "images", ["good", "other", "good"])
    arguments = ["bulk", str(images), str(tmp_path / "words"), "--bundle", bundle]
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert (record["images"], record["bad"], record["parts"], record["parts_written"]) == (2, 1, 1, 1)
    assert captured.err == f"spae: skipped 1 image that could not be read: see {tmp_path}/words/bad.jsonl\n"
    assert main(arguments) == 0
    assert "2 images in 1 part, 0 written now" in capsys.readouterr().out
    assert main([*arguments, "--layers", "1"]) == 1
    assert "begun with layers 3, this is 1" in capsys.readouterr().err
    # A row is what `spae decode` takes.
    (tmp_path / "row.json").write_text(
        (tmp_path / "words" / "part-00000-of-00001.jsonl").read_text().splitlines()[0]
    )
    assert (
        main(["decode", str(tmp_path / "row.json"), "-o", str(tmp_path / "a.png"), "--bundle", bundle]) == 0
    )


def test_nothing_but_bad_images_fails(tmp_path, bundle, capsys):
    images = write_folder(tmp_path / "images", list(BAD))
    assert main(["bulk", str(images), str(tmp_path / "words"), "--bundle", bundle]) == 1
    assert "none of 3 images could be read: see" in capsys.readouterr().err
    assert len(bad_images(tmp_path / "words")) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_drop_the_part_and_say_how_to_go_on(tmp_path, bundle, capsys, monkeypatch, number):
    images = write_folder(tmp_path / "images", ["good"] * 3)
    arguments = ["bulk", str(images), str(tmp_path / "words"), "--bundle", bundle]
    handler = signal.getsignal(signal.SIGTERM)

    class Interrupted(FakeTokenizer):
        def encode(self, image):
            os.kill(os.getpid(), number)
            return super().encode(image)

    with monkeypatch.context() as patch:
        patch.setattr(spae, "load", lambda name: Interrupted())
        assert main(arguments) == 1
    assert capsys.readouterr().err == "spae: stopped; the same command goes on where this one was\n"
    assert not list((tmp_path / "words").glob("part*"))
    assert signal.getsignal(signal.SIGTERM) is handler
    assert main(arguments) == 0
    assert len(rows(tmp_path / "words")) == 3


def test_ray_gives_the_same_bytes_though_a_worker_is_lost(tmp_path, bundle):
    """In a process of its own, because Ray forks and JAX, which runs in this one, warns of that."""
    pytest.importorskip("ray.data")
    kinds = ["good", "truncated", "good", "good", "empty", "good", "good"]
    images, marker = write_folder(tmp_path / "images", kinds), tmp_path / "died"
    job = open_job(images, bundle, part_size=3)
    run(job, tmp_path / "one process")
    script = f"""
import dataclasses, json, os, sys
from functools import partial
from pathlib import Path
from spae.bulk import on_ray
from spae.bulk.job import open_job
from spae.bulk.run import run
from spae.sources.folder import FolderSource

class Deadly(FolderSource):
    def __getitem__(self, index):
        # The first to read image 4 dies, without a word.
        if index == 4 and not os.path.exists({str(marker)!r}):
            open({str(marker)!r}, "w").close()
            os._exit(1)
        return super().__getitem__(index)

job = open_job({str(images)!r}, {bundle!r}, part_size=3)
job = dataclasses.replace(job, source=Deadly(Path({str(images)!r}), job.source.size))
done = run(job, sys.argv[1], partial(on_ray.parts, cores=1))
print(json.dumps([dataclasses.asdict(done), "jax" in sys.modules]))
"""
    # A short path, because Ray puts sockets there, whose names must be short.
    with tempfile.TemporaryDirectory() as temporary:
        ended = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "ray")],
            env=os.environ | {"RAY_TMPDIR": temporary},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    done, jax_in_the_driver = json.loads(ended.stdout.splitlines()[-1])
    assert marker.exists()
    assert (done["images"], done["bad"], done["parts_written"]) == (5, 2, 3)
    assert contents(tmp_path / "ray") == contents(tmp_path / "one process")
    assert not jax_in_the_driver


def test_without_ray(tmp_path, bundle, capsys, monkeypatch):
    images = write_folder(tmp_path / "images", ["good"])
    monkeypatch.setattr("spae.bulk.on_ray.find_spec", lambda name: None)
    assert main(["bulk", str(images), str(tmp_path / "words"), "--bundle", bundle, "--ray"]) == 1
    assert "pip install 'spae[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "words").exists()


def test_no_cluster_at_the_address(tmp_path, bundle, capsys):
    pytest.importorskip("ray.data")
    images = write_folder(tmp_path / "images", ["good"])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        arguments = ["bulk", str(images), str(tmp_path / "words"), "--bundle", bundle, "--ray", address]
        assert main(arguments) == 1
    assert capsys.readouterr().err == f"spae: cannot reach the Ray cluster {address}: Connection refused\n"


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ([{"CPU": 16.0}, {"CPU": 10.0}], (6, {"num_cpus": 4}, 4)),
        ([{"CPU": 2.0}], (1, {"num_cpus": 2}, 2)),
        ([{"CPU": 64.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 12.0, "GPU": 2.0}], (6, {"num_gpus": 1}, 6)),
    ],
)
def test_actors_of_a_cluster(machines, expected):
    nodes = [{"Alive": True, "Resources": one} for one in machines]
    assert on_ray.actors([*nodes, {"Alive": False, "Resources": {"GPU": 8.0}}], 4) == expected


def test_a_cluster_without_anything():
    with pytest.raises(InputError, match="no cores"):
        on_ray.actors([{"Alive": True, "Resources": {}}], 4)


def test_cores():
    assert 1 <= local.cores() <= (os.cpu_count() or 1)
