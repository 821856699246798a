"""Every tiny variant of every config of images: trained through the command line, then encode, decode, load."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import spae
from spae.errors import InputError
from spae.guidance.choice import load_guidance
from spae.guidance.clip import Clip
from spae.guidance.meaning_view import embedded
from spae.sources import open_source
from spae.vocabulary import Vocabulary
from tokenizer_train.cli import main
from tokenizer_train.config import Config, LossConfig, VocabularyConfig
from tokenizer_train.config_file import load_config, variants

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GOLDEN = Path(__file__).parents[1] / "golden" / "clip_hugging_face"  # random weights
STEPS = 3


def tiny_variants() -> list[tuple[Path, str]]:
    """Those that differ; tests of their own train the default's, clips, connectors, and what needs a masked language
    model."""
    default = load_config(CONFIGS / "default64.py", "tiny")
    found, seen = [], [dataclasses.replace(default, run=dataclasses.replace(default.run, output="anywhere"))]
    for file in sorted(CONFIGS.glob("*.py")):
        for name in variants(file):
            if name.split("-")[-1] != "tiny":
                continue
            config = load_config(file, name)
            if not isinstance(config, Config):
                continue
            same = dataclasses.replace(config, run=dataclasses.replace(config.run, output="anywhere"))
            special = config.tokenizer.frames > 1 or config.tokenizer.network != "cnn"
            if same not in seen and not special:
                seen.append(same)
                found.append((file, name))
    return found


@pytest.fixture(scope="module")
def clip_vocabulary_folder(vocabulary_folder, tmp_path_factory) -> Path:
    """The tiny words with the vectors of a tiny CLIP."""
    folder = tmp_path_factory.mktemp("clip_vocabulary")
    embedded(Vocabulary.load(vocabulary_folder), Clip(GOLDEN), cache=folder / "cache").save(folder)
    return folder


@pytest.mark.parametrize(("file", "variant"), tiny_variants(), ids=lambda x: getattr(x, "stem", x))
def test_a_tiny_run(
    file,
    variant,
    vocabulary_folder,
    clip_vocabulary_folder,
    image_folder,
    tmp_path,
    hash_guidance,
    monkeypatch,
) -> None:
    config = load_config(file, variant)
    arguments = [str(file), "--variant", variant, "--optimizer.steps", str(STEPS)]
    arguments += ["--optimizer.warmup-steps", "1", "--optimizer.cooldown-steps", "0"]
    arguments += ["--data.train", str(image_folder), "--data.validation", str(image_folder)]
    arguments += ["--data.batch-size", "8", "--run.output", str(tmp_path / "run")]
    # The bundle holds the averaged weights, and here shall hold the last; the discriminator takes longest to compile.
    arguments += ["--optimizer.ema", "0", "--loss.adversarial", "0"]
    ranked = config.tokenizer.meaning == "ranked"
    if ranked:
        monkeypatch.setattr("tokenizer_train.guidance.load_guidance", load_guidance)
        arguments += ["--guidance", f"clip:{GOLDEN}"]
    if config.vocabulary.codes is None:
        arguments += ["--vocabulary.path", str(clip_vocabulary_folder if ranked else vocabulary_folder)]
    assert main(arguments) == 0

    tokenizer = spae.load(tmp_path / "run" / "bundle")
    assert tokenizer.config == config.tokenizer
    images = [record.image for record in open_source(image_folder)][::6]
    pyramids = tokenizer.encode(images)
    side = config.tokenizer.image_size
    assert tokenizer.decode(pyramids).shape == (len(images), side, side, 3)
    text = pyramids[0].text()
    assert tokenizer.parse(text).repairs == ()
    np.testing.assert_array_equal(tokenizer.decode(text), tokenizer.decode(pyramids[0]))
    if config.tokenizer.codebook != "frozen":
        # It was trained: the searched table is no longer what it began as.
        begun = tokenizer.vocabulary.codebook("appearance")
        assert not np.allclose(tokenizer._codebooks["appearance"], begun, atol=1e-6)
    if ranked:
        top = np.concatenate([ids.ravel() for ids in pyramids[0].ids[: config.tokenizer.meaning_layers]])
        assert len(set(top.tolist())) == len(top)


def test_choices_of_a_run_that_do_not_fit_each_other() -> None:
    learned = load_config(CONFIGS / "vqgan128.py")
    ranked = load_config(CONFIGS / "v2l128.py")
    for config, changes, message in [
        (learned, {"vocabulary": VocabularyConfig(path="words")}, 'must be "learned" with vocabulary.codes'),
        (ranked, {"vocabulary": VocabularyConfig(codes=9)}, 'must be "learned" with vocabulary.codes'),
        (learned, {"loss": LossConfig()}, "nothing there learns a meaning"),
        (ranked, {"loss": LossConfig(semantic_layers=0)}, "nothing there learns a meaning"),
        (
            ranked,
            {"loss": LossConfig(semantic=0.0, semantic_layers=0, prefix_dropout=0.1)},
            "0 with tokenizer.cross",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            dataclasses.replace(config, **changes)
    for fields, message in [
        ({}, "unless vocabulary.codes"),
        ({"path": "words", "codes": 9}, "unless vocabulary.codes"),
        ({"codes": 1}, "at least 2"),
        ({"codes": 9, "width": 0}, "at least 1"),
    ]:
        with pytest.raises(InputError, match=message):
            VocabularyConfig(**fields)


def test_words_of_another_guidance_are_not_ranked(
    vocabulary_folder, image_folder, tmp_path, hash_guidance, capsys
) -> None:
    arguments = [str(CONFIGS / "v2l128.py"), "--variant", "tiny", "--run.output", str(tmp_path / "run")]
    arguments += ["--data.train", str(image_folder), "--data.validation", str(image_folder)]
    assert main([*arguments, "--vocabulary.path", str(vocabulary_folder)]) == 1
    assert "with vectors of the language model: build it with" in capsys.readouterr().err
