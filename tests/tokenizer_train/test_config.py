"""Configs: checked on the way in, set from the command line, every shipped config and variant loads."""

import dataclasses
from pathlib import Path

import pytest

from spae.architecture import AutoencoderConfig
from spae.errors import InputError
from tokenizer_train.cli import main
from tokenizer_train.config import DataConfig, LossConfig, OptimizerConfig, RunConfig
from tokenizer_train.config_file import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.py")), ids=lambda f: f.stem)
def test_every_config_and_variant_loads(file: Path) -> None:
    full = load_config(file)
    tiny = load_config(file, "tiny")
    assert tiny.optimizer.steps <= 20 < full.optimizer.steps
    assert tiny.run.output != full.run.output
    header = file.read_text().split('"""')[1]
    for entry in ("Command", "Hardware", "Time", "Expect"):
        assert f"\n{entry} " in header, entry


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (
            AutoencoderConfig,
            {"image_size": 100, "patch": 4, "downsamplings": 1},
            r"has side 12\.5, but .* side 16: change one of --tokenizer\.image-size.* --tokenizer\.image-size 128 fits",
        ),
        (LossConfig, {"temperature": 0.0}, r"wanted loss\.temperature above 0, got 0\.0"),
        (LossConfig, {"adversarial": -1.0}, r"wanted loss\.adversarial of at least 0, got -1\.0"),
        (LossConfig, {"semantic": float("nan")}, r"wanted loss\.semantic of at least 0, got nan"),
        (LossConfig, {"perceptual_network": "vgg"}, r"perceptual_network is one of stlpips-vgg, .*not 'vgg'"),
        (LossConfig, {"thresholds": (0.9,)}, r"semantic_layers must be 0 \.\. 1"),
        (LossConfig, {"prefix_dropout": 1.5}, r"wanted loss\.prefix_dropout from 0 to 1, got 1\.5"),
        (OptimizerConfig, {"steps": -1}, r"wanted optimizer\.steps of at least 0, got -1"),
        (
            OptimizerConfig,
            {"learning_rate": float("inf")},
            r"wanted optimizer\.learning_rate above 0, got inf",
        ),
        (
            OptimizerConfig,
            {"betas": (0.0, 1.0)},
            r"wanted optimizer\.betas from 0 to 1, 1 left out, got 1\.0",
        ),
        (
            OptimizerConfig,
            {"decay": "linear"},
            r"optimizer\.decay is one of rsqrt, cosine, constant, not 'linear'",
        ),
        (
            DataConfig,
            {"train": "a", "validation": "b", "batch_size": 0},
            r"wanted data\.batch_size of at least 1",
        ),
        (RunConfig, {"output": "a", "seed": -1}, r"wanted run\.seed from 0 to 4294967295, got -1"),
        (
            RunConfig,
            {"output": "a", "precision": "float16"},
            r"run\.precision is one of float32, bfloat16, not 'float16'",
        ),
        (
            RunConfig,
            {"output": "a", "start": "zeros"},
            r"run\.start is one of random, principal, not 'zeros'",
        ),
        (
            RunConfig,
            {"output": "a", "trains": "encoder"},
            r"run\.trains is one of all, decoder, not 'encoder'",
        ),
    ],
)
def test_bad_values_are_refused(section, changes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        section(**changes)


def test_sections_must_fit_each_other() -> None:
    config = load_config(CONFIGS / "default64.py")
    with pytest.raises(InputError, match=r"at least warmup_steps \+ cooldown_steps, 1,000 \+ 0 .*, got 5"):
        dataclasses.replace(config, optimizer=OptimizerConfig(steps=5))
    with pytest.raises(InputError, match=r"guidance must be .*clip-jax:NAME_OR_PATH"):
        dataclasses.replace(config, guidance="dino")
    words = dataclasses.replace(config.tokenizer, trunk="none", meaning="head", pools=())
    assert dataclasses.replace(config, tokenizer=words, guidance="clip-jax:x").guidance == "clip-jax:x"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.guidance = "clip:x"


def test_what_a_start_and_a_decoder_alone_need() -> None:
    cpu, finish = (load_config(CONFIGS / "default64.py", name) for name in ("cpu", "finish"))

    def changed(config, **sections):
        return dataclasses.replace(
            config,
            **{
                name: dataclasses.replace(getattr(config, name), **fields)
                for name, fields in sections.items()
            },
        )

    mapped = {"codebook": "frozen", "latents": None}
    head = {"meaning": "head", "pools": ()}
    for config, sections, message in [
        (
            cpu,
            {"run": {"start": "random"}},
            r'run\.start must be principal where tokenizer\.meaning is "pursuit"',
        ),
        (cpu, {"loss": {"semantic": 1.0}}, r"loss\.semantic must be 0 .*nothing there learns a meaning"),
        (cpu, {"tokenizer": {**head, "skip": False}}, r"run\.start must be random unless tokenizer\.skip"),
        (cpu, {"tokenizer": {**head, **mapped}}, r"run\.start must be random unless tokenizer\.skip"),
        (cpu, {"run": {"trains": "decoder"}}, r"run\.initial must be a bundle"),
        (finish, {"run": {"initial": None}}, r"run\.initial must be a bundle"),
        (finish, {"loss": {"masked_lm": 1.0}}, r'loss\.masked_lm must be 0 where run\.trains is "decoder"'),
        (
            finish,
            {"optimizer": {"weight_decay": 0.1}},
            r"optimizer\.weight_decay must be 0 where run\.trains",
        ),
        (
            finish,
            {"tokenizer": head, "loss": {"semantic": 1.0}},
            r"loss\.semantic must be 0 where run\.trains",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            changed(config, **sections)


def test_the_command_line_refuses_what_it_does_not_know(capsys, tmp_path) -> None:
    file = str(CONFIGS / "default64.py")
    for arguments, message in [
        (["--optimizer.step", "3"], "--optimizer.step"),
        (["--data.batch-size", "0"], "wanted data.batch_size of at least 1, got 0"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main([file, *arguments])
        assert stopped.value.code == 2
        assert message in " ".join(capsys.readouterr().err.split())
    for arguments, message in [
        (["nowhere.py"], "wanted a config file"),
        ([file, "--variant", "huge"], "--variant must be one of cpu, map, finish, linear, tiny"),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert main([str(tmp_path / "empty.py")]) == 1
    assert "must define a function config()" in capsys.readouterr().err
    assert main([]) == 2
    assert "example" in capsys.readouterr().err


def test_help_names_the_fields(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(CONFIGS / "default64.py"), "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--optimizer.learning-rate" in shown
    assert "Example: spae-train" in shown
