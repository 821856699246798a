"""What a config names and a run would not find: told before anything is rented."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from spae import bundle
from spae.errors import BundleError, InputError
from spae.guidance import efficientnet, minilm
from spae.guidance.choice import parse
from spae.guidance.clip.files import find_weights
from spae.tokenizer import Tokenizer
from tokenizer_train.config import Config
from tokenizer_train.connector import shapes as connector_shapes
from tokenizer_train.connector.config import ConnectorExperiment
from tokenizer_train.data import open_data
from tokenizer_train.guidance import looks_at_images
from tokenizer_train.inflate import matching
from tokenizer_train.start import pursuit_of


def missing(config: Config | ConnectorExperiment, params: Any = None) -> list[str]:
    """One line for every field of the config whose files are not there, or are of another kind, with the reason.

    Args:
        params: those of the tokenizer, or their shapes, which the bundle of `run.initial` has to have; None: not asked.
    """
    found = []

    def look(field: str, at: Callable[[], object]) -> None:
        try:
            at()
        except (InputError, BundleError, OSError) as error:
            found.append(f"{field}: {error}")

    if isinstance(config, ConnectorExperiment):
        for field, at in connector_shapes.missing(config).items():
            look(field, at)
        return found
    data = config.data
    look("vocabulary.path", partial(_vocabulary, config))
    look("data.train", partial(_images, config, data.train, data.train_split))
    for path, _ in data.mixture:
        look("data.mixture", partial(_images, config, path, None))
    if data.validation is not None:
        look("data.validation", partial(_images, config, data.validation, data.validation_split))
    if config.run.initial is not None:
        look("run.initial", partial(_initial, config, config.run.initial, params))
    if looks_at_images(config):
        look("guidance", partial(_guidance, config.guidance))
    if config.loss.perceptual > 0 and config.loss.perceptual_weights is not None:
        look("loss.perceptual_weights", partial(_file, Path(config.loss.perceptual_weights)))
    if config.language_model is not None:
        for name in ("config.json", "tokenizer.json"):
            look("language_model", partial(_file, Path(config.language_model) / name))
    return found


def _vocabulary(config: Config) -> None:
    if not config.vocabulary.is_there():
        raise InputError(f"nothing at {config.vocabulary.path}: see spae vocab build --help")


def _initial(config: Config, name: str, params: Any) -> None:
    bundle.find(name)
    if params is None or not config.vocabulary.is_there():
        return
    loaded = Tokenizer.load(name)
    matching(name, loaded, config.tokenizer, config.vocabulary.load(), params)
    if config.tokenizer.meaning == "pursuit":
        pursuit_of(config, loaded)


def _images(config: Config, path: str, split: str | None) -> None:
    found = len(open_data(path, split, config.tokenizer, config.data))
    if not found:
        raise InputError(f"no image at {path}")
    if found < 2 and path == config.data.train and config.data.validation is None:
        raise InputError(f"one image at {path}: with data.validation None one is held out, which takes two")


def _guidance(name: str) -> None:
    kind, place = parse(name)
    if kind == "clip":
        find_weights(Path(place))
    elif kind == "conse":
        efficientnet.packaged_file()
        minilm.packaged_file()


def _file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"no file at {path}")
