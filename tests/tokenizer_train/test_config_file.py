"""Config files: found by path and by name, with their neighbours, their mistakes in one line; and written anew."""

from pathlib import Path

import pytest

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.errors import InputError
from tokenizer_train.cli import main
from tokenizer_train.config_file import SHIPPED, load_config, written
from tokenizer_train.finetune import finetune_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(file.stem for file in CONFIGS.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_gives_the_same_config(name: str, tmp_path) -> None:
    path = tmp_path / "mine.py"
    for variant in (None, "tiny"):
        config = load_config(name, variant)
        text = written(config, Path("mine.py"), name)
        path.write_text(text)
        assert load_config(path) == config
        imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
        assert all(line.startswith(("from spae.", "from tokenizer_train.")) for line in imports)
        assert max(map(len, text.splitlines())) <= 120
    assert "  # length of the run; 0: the bundle of the start as it is" in text
    assert "            # epsilon=1e-08,  # Adam's; a gradient that is but rounding and " in text
    assert "# Path or glob that spae.sources.open_source understands.\n" in text


def test_a_shipped_config_by_its_name() -> None:
    assert {file.name for file in SHIPPED.glob("*.py")} == {file.name for file in CONFIGS.glob("*.py")}
    assert load_config("default64", "cpu") == load_config(CONFIGS / "default64.py", "cpu")
    with pytest.raises(
        InputError, match=r"there is no file default65: wanted a config file, one of ablations64, "
    ):
        load_config("default65")


def test_a_config_imports_its_own_neighbours(tmp_path) -> None:
    for folder, steps in (("a", 7), ("b", 8)):
        (tmp_path / folder).mkdir()
        base = written(load_config("default64", "tiny"), tmp_path / "base.py", "default64")
        base = base.replace("            steps=20,", f"            steps={steps},")
        (tmp_path / folder / "base.py").write_text(base)
        late = "def config():\n    import base\n    return base.config()\n"
        (tmp_path / folder / "mine.py").write_text(late if folder == "a" else "from base import config\n")
        assert load_config(tmp_path / folder / "mine.py").optimizer.steps == steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n\ny = x / 0\n", r"mine\.py:3: ZeroDivisionError: division by zero"),
        ("def config():\n    return nothing\n", r"mine\.py:2: NameError: name 'nothing' is not defined"),
        ("def config(:\n", r"mine\.py:1: invalid syntax"),
        ("import neighbour\n", r"neighbour\.py:2: ValueError: two lines"),
        ("import no_such_thing\n", r"mine\.py:1: ModuleNotFoundError: No module named 'no_such_thing'"),
        (
            "from tokenizer_train.config import RunConfig\nRunConfig(output='')\n",
            r"mine\.py:2: run\.output must be",
        ),
    ],
)
def test_a_mistake_is_one_line(text: str, message: str, tmp_path, capsys) -> None:
    (tmp_path / "neighbour.py").write_text("\nraise ValueError('two\\nlines')\n")
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "mine.py")
    assert main([str(tmp_path / "mine.py")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_finetuning_the_shipped_bundle() -> None:
    config = finetune_config("photographs")
    info, files = bundle.read("default")
    assert config.tokenizer == AutoencoderConfig.from_json(info["config"])
    assert list(config.vocabulary.load().words) == files["words.json"]
    assert (config.data.train, config.data.validation, config.run.initial) == ("photographs", None, "default")
    assert config.run.trains == "all"


@pytest.mark.parametrize(
    ("fields", "trains"),
    [
        ({"frames": 4, "meaning_layers": 0}, "all"),
        # The encoder itself chooses the words, and would choose others.
        ({"frames": 4, "meaning_layers": 2, "meaning": "head", "trunk": "none"}, "decoder"),
    ],
)
def test_finetuning_keeps_what_the_bundle_was_trained_to_read(fields, trains, monkeypatch) -> None:
    pyramid = ((4, 1, 1), (4, 2, 2), (4, 4, 4))
    small = {"image_size": 16, "pyramid": pyramid, "multipliers": (1, 2), "downsamplings": 2}
    info = {
        "config": small | fields,
        "training": {"config": {"data": {"stride": 4, "fps": 8.0}}},
    }
    monkeypatch.setattr("tokenizer_train.finetune.read", lambda name: (info, {}))
    config = finetune_config("films", "clips")
    assert (config.data.stride, config.data.fps, config.run.trains) == (4, 8.0, trains)


def test_new_writes_one_of_ones_own(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--variant", "cpu", "--vocabulary.path", "default", "--data.train", "photographs"]
    assert main(["new", "mine.py", *given, "--data.validation", "None"]) == 0
    assert "mine.py" in capsys.readouterr().out
    config, base = load_config("mine.py"), load_config("default64", "cpu")
    assert (config.tokenizer, config.optimizer) == (base.tokenizer, base.optimizer)
    assert (config.data.train, config.data.validation, config.run.output) == (
        "photographs",
        None,
        "build/mine",
    )
    assert config.vocabulary.path == "default"
    for arguments, message in (
        (["new", "mine.py"], "mine.py is there already: choose another name"),
        (["new", "mine"], "wanted the name of a Python file to write, such as mine.py, got 'mine'"),
    ):
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
    assert main(["new"]) == 2
    assert "usage" in capsys.readouterr().err


def test_a_dry_run_of_finetuning_is_of_this_machine(image_folder, tmp_path, monkeypatch, capsys) -> None:
    asked = []
    monkeypatch.setattr(
        "tokenizer_train.cli._dry_run", lambda config, options: asked.append(options.device) or 0
    )
    assert main(["finetune", str(image_folder), "--dry-run"]) == 0
    assert main(["finetune", str(image_folder), "--dry-run", "--device", "rtx4090"]) == 0
    assert main(["default64", "--dry-run"]) == 0
    assert asked == ["cpu", "rtx4090", "h100"]
    # What is not there is told before anything is computed.
    assert main(["finetune", str(tmp_path / "mistyped"), "--dry-run"]) == 1
    assert "nothing at " in capsys.readouterr().err
    assert len(asked) == 3
