"""The command line: what it prints and writes, its exit statuses, one line for every error."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_tokenizer import WORDS, FakeTokenizer, load_fake
from PIL import Image
from tiny_tokenizers import write_tiktoken

import spae
from spae import progress
from spae.cli import main
from spae.commands import pictures
from spae.errors import InputError
from spae.images import open_image


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(spae, "load", load_fake)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "ramp.png"
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[:, None, None].repeat(32, 1).repeat(3, 2)
    Image.fromarray(ramp).save(path)
    return path


def fails(capsys, status: int, *arguments: object) -> str:
    """Runs a command that fails, and returns its single line on stderr."""
    assert main([str(argument) for argument in arguments]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("spae: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_encode_prints_a_line_for_each_layer(picture, capsys):
    assert main(["encode", str(picture)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [len(line.split()) for line in lines] == [1, 4, 16]
    assert lines[1].split()[:2] == lines[1].split()[:1] * 2
    assert captured.err == ""
    assert main(["encode", str(picture), "--layers", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == lines[:2]


def test_encode_json_is_one_object_a_line(picture, capsys):
    assert main(["encode", str(picture), str(picture), "--json", "--layers", "2"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 2
    assert records[0]["model"] == "default"
    assert records[0]["image"] == str(picture)
    assert [(layer["height"], layer["width"]) for layer in records[0]["layers"]] == [(1, 1), (2, 2)]
    layer = records[0]["layers"][1]
    assert [WORDS[i] for i in layer["ids"]] == layer["words"]


def test_encode_goes_on_after_a_bad_image_and_fails(picture, tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    assert main(["encode", str(bad), str(picture)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"spae: {bad} is empty (0 bytes): give a JPEG, PNG or WebP image\n"
    assert captured.out.startswith(f"{picture}:\n")


def test_encode_of_many_tells_a_log_how_far_it_has_come(picture, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(pictures, "BATCH", 1)
    assert main(["encode", *[str(picture)] * 3, "--layers", "1"]) == 0
    captured = capsys.readouterr()
    assert [line.partition(",")[0] for line in captured.err.splitlines()] == ["images 1/3", "images 2/3"]
    assert captured.out.count(f"{picture}:\n") == 3


def test_encode_then_decode(picture, tmp_path, capsys, monkeypatch):
    output = tmp_path / "back.png"
    main(["encode", str(picture)])
    text = capsys.readouterr().out
    tokenizer = FakeTokenizer()
    expected = tokenizer.decode(tokenizer.encode(open_image(picture)))

    words = tmp_path / "words.txt"
    words.write_text(text)
    main(["encode", str(picture), "--json"])
    record = tmp_path / "words.json"
    record.write_text(capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    for source in (words, record, "-", " ".join(text.split())):
        assert main(["decode", str(source), "-o", str(output)]) == 0
        with Image.open(output) as decoded:
            np.testing.assert_array_equal(np.asarray(decoded), expected)
        output.unlink()
        assert capsys.readouterr() == ("", "")


def test_decode_says_what_it_repaired(tmp_path, capsys):
    output = tmp_path / "back.png"
    assert main(["decode", "whitte snow snow coal coal", "-o", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "spae: repaired word 1" in captured.err
    assert "'white'" in captured.err
    assert main(["decode", "1. white\n2. Snow\n3. snow\n4. coal\n5. 'coal'", "-o", str(output)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "spae: repaired word 2: case 'Snow', used 'snow'",
        "spae: left out around the words: numbering (5), punctuation (1)",
    ]
    assert main(["decode", "whitte snow snow coal coal", "-o", str(output), "--json"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    warning = "spae: warning: 5 words wanted for 2 layers, 4 found: 1 unknown, replaced (--strict refuses such text)"
    assert captured.err == f"{warning}\n"
    assert record["repairs"][0]["found"] == "whitte"
    assert record["layers"][0]["words"] == ["white"]


def test_decode_says_how_many_words_are_missing_or_too_many_and_strictly_refuses(tmp_path, capsys):
    output = tmp_path / "back.png"
    seven = "snow " * 7
    assert main(["decode", seven, "-o", str(output)]) == 0
    missing = "21 words wanted for 3 layers, 7 found: 14 missing, filled with the word above"
    assert capsys.readouterr().err == f"spae: warning: {missing} (--strict refuses such text)\n"
    assert main(["decode", "snow " * 23, "-o", str(output)]) == 0
    assert capsys.readouterr().err == (
        "spae: 21 words wanted for 3 layers, 21 found: left out 2 more words: snow snow ..\n"
    )
    assert main(["decode", "snow " * 20, "-o", str(output)]) == 0
    assert capsys.readouterr().err == (
        "spae: 21 words wanted for 3 layers, 20 found: 1 missing, filled with the word above\n"
    )
    output.unlink()
    for text, said in (
        (seven, "7 found: 14 missing"),
        ("snow " * 23, "left out 2 more words"),
        ("whitte snow snow coal coal", "not in the vocabulary: 'whitte' at 1; mend the text"),
    ):
        assert said in fails(capsys, 1, "decode", text, "-o", output, "--strict")
    assert not output.exists()
    assert main(["decode", "1. Snow, 2. snow 3. snow\n4. coal\n5. coal", "-o", str(output), "--strict"]) == 0
    assert output.exists()


def test_prompt_shows_the_words_of_its_examples(picture, capsys):
    main(["encode", str(picture), "--layers", "2"])
    words = capsys.readouterr().out.split()
    assert main(["prompt", str(picture), "--layers", "2"]) == 0
    told = capsys.readouterr().out
    assert "exactly 5 words: 2 grids" in told
    assert f"For example, ramp:\n\n{words[0]}\n\n{' '.join(words[1:3])}\n{' '.join(words[3:])}\n" in told
    assert main(["prompt", str(picture), "--json", "--layers", "2"]) == 0
    assert json.dumps({"layers": [words[:1], words[1:]]}) in capsys.readouterr().out
    assert "No such file" in fails(capsys, 1, "prompt", picture.with_name("missing.png"))
    assert "two examples are called 'ramp'" in fails(capsys, 1, "prompt", picture, picture)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_draw_writes_a_picture(picture, tmp_path, suffix):
    output = tmp_path / f"pyramid{suffix}"
    assert main(["draw", str(picture), "-o", str(output), "--layers", "2"]) == 0
    with Image.open(output) as drawn:
        assert drawn.width > 800
    assert [path.name for path in tmp_path.iterdir()].count(f"pyramid{suffix}") == 1
    assert not list(tmp_path.glob(".*"))


def test_demo(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path / "page")]) == 0
    assert str(tmp_path / "page" / "index.html") in capsys.readouterr().out


def test_vocab_build(tmp_path, capsys, monkeypatch):
    asked = {}

    def build(model, **options):
        asked.update(options, model=model)
        return FakeTokenizer().vocabulary

    monkeypatch.setattr("spae.frozen_lm.build_vocabulary.build", build)
    folder = tmp_path / "words"
    command = ["vocab", "build", "--from", "m.gguf", "-o", str(folder), "--min-zipf", "0", "--view", "raw"]
    command += ["--block", "bad.txt", "--also", "other.gguf", "o200k_base"]
    assert main(command) == 0
    assert asked["model"] == "m.gguf"
    assert asked["min_zipf"] is None
    assert asked["view"] == "raw"
    assert asked["block"] == "bad.txt"
    assert asked["also"] == ["other.gguf", "o200k_base"]
    assert (folder / "words.json").is_file()
    assert "8 words of 2 dimensions" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == 8
    (tmp_path / "file").touch()
    assert "it is a file" in fails(capsys, 1, "vocab", "build", "-o", tmp_path / "file")
    (tmp_path / "bundle.json").touch()
    assert "is a bundle, which has" in fails(capsys, 1, "vocab", "build", "-o", tmp_path)
    with pytest.raises(InputError, match="is a bundle, which has"):
        FakeTokenizer().vocabulary.save(tmp_path)


def test_vocab_check(tmp_path, capsys):
    other = write_tiktoken(tmp_path / "other.tiktoken", ["snow", "black", "white"])
    third = write_tiktoken(tmp_path / "third.tiktoken", ["snow"])
    words = tmp_path / "words.txt"
    words.write_text("snow\n\nCoal\nwhite\nsnow\n")
    FakeTokenizer().vocabulary.save(tmp_path / "vocabulary")
    assert main(["vocab", "check", str(words), "--tokenizer", str(other), str(third)]) == 0
    assert capsys.readouterr().out == "       2 of 3   66.67%  other\n       1 of 3   33.33%  third\n"
    for source, size, others in (
        (words, 3, ["Coal"]),
        (tmp_path / "vocabulary", 8, ["coal", "dusk", "grey", "mist", "pale"]),
    ):
        assert main(["vocab", "check", str(source), "--tokenizer", str(other), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["words"] == size
        assert found["tokenizers"][0]["others"] == others
        assert found["tokenizers"][0]["single"] == size - len(others)
    assert main(["vocab", "check", "default", "--tokenizer", str(third), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizers"][0]["single"] == 1
    assert "no text file" in fails(capsys, 1, "vocab", "check", tmp_path / "none", "--tokenizer", other)
    assert "there is no" in fails(capsys, 1, "vocab", "check", words, "--tokenizer", tmp_path / "none.gguf")


def test_failures_are_one_line(picture, tmp_path, capsys):
    output = tmp_path / "out.png"
    assert "cannot read" in fails(capsys, 1, "encode", tmp_path / "missing.png")
    assert "no bundle nowhere" in fails(capsys, 1, "encode", picture, "--bundle", "nowhere")
    assert "layers" in fails(capsys, 1, "encode", picture, "--layers", "9")
    assert "layers" in fails(capsys, 1, "decode", "snow", "--layers", "9", "-o", output)
    assert "text" in fails(capsys, 1, "decode", "", "-o", output)
    assert "no file at" in fails(capsys, 1, "decode", "words.txt", "-o", output)
    assert "JSON" in fails(capsys, 1, "decode", '{"words": 3}', "-o", output)
    assert "got" in fails(capsys, 1, "decode", "snow", "-o", tmp_path / "out.bmp")
    assert "no folder" in fails(capsys, 1, "draw", picture, "-o", tmp_path / "none" / "out.png")
    (tmp_path / "folder.png").mkdir()
    assert "it is a folder" in fails(capsys, 1, "decode", "snow", "-o", tmp_path / "folder.png")
    (tmp_path / "blob.bin").write_bytes(b"\xff\xfe\xfd")
    assert "UTF-8" in fails(capsys, 1, "decode", tmp_path / "blob.bin", "-o", output)
    assert "cannot make the folder" in fails(capsys, 1, "demo", "--output", picture / "page")
    assert not output.exists()


def test_full_disk_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    output = tmp_path / "out.png"
    output.write_bytes(b"old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in fails(capsys, 1, "decode", "snow", "-o", output)
    assert output.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.png"]


def test_interrupt_is_quiet(picture, capsys, monkeypatch):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(spae, "load", interrupted)
    assert main(["encode", str(picture)]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["encode"],
        ["encode", "x.png", "--layers", "0"],
        ["encode", "x.png", "--layers", "two"],
        ["decode", "snow"],
        ["vocab"],
        ["vocab", "build", "-o", "x", "--view", "odd"],
    ],
)
def test_bad_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: spae" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[], ["encode"], ["decode"], ["draw"], ["prompt"], ["bulk"], ["vocab", "build"], ["demo"]]
)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    example = capsys.readouterr().out.partition("example: ")[2]
    assert f"spae {' '.join(command)}" in example


def test_help_does_not_import_jax():
    script = "import sys, spae.cli\ntry: spae.cli.main(['--help'])\nfinally: print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


# As most people have it: what is printed is kept until there is more of it, or the end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("module", ["spae.cli", "tokenizer_train.cli", "icl_runner.cli"])
def test_a_reader_that_left_is_no_error(module):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", module, "--help"]
    with os.fdopen(write, "wb"):
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=BUFFERED)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(os.name != "posix", reason="closes standard output in a POSIX shell")
def test_without_a_standard_output():
    command = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "spae.cli", "--help"]
    done = subprocess.run(command, stderr=subprocess.PIPE, env=BUFFERED)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


FAILING = """
import sys
from spae.cli import exit_status
from spae.errors import InputError

def run():
    print("word " * int(sys.argv[1]))
    if sys.argv[2:]:
        raise InputError(sys.argv[2])
    return 0

sys.exit(exit_status("spae", run))
"""


@pytest.mark.parametrize(
    "buffering", [BUFFERED, BUFFERED | {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "not"]
)
@pytest.mark.parametrize("words", [1, 100_000], ids=["written at the end", "written at once"])
def test_what_cannot_be_printed_has_a_status_and_at_most_a_line(words, buffering):
    def stderr(stdout: int, *arguments: str) -> bytes:
        command = [sys.executable, "-c", FAILING, str(words), *arguments]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=buffering)
        assert done.returncode == 1
        return done.stderr

    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb"):
        assert stderr(write) == b""
        if words == 1 and buffering is BUFFERED:
            assert stderr(write, "no image could be read") == b"spae: no image could be read\n"
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            line = stderr(full.fileno())
        assert line.startswith(b"spae: ")
        assert line.endswith(b"No space left on device\n")
        assert line.count(b"\n") == 1
