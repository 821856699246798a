"""The parts of a tokenizer, and how a bundle keeps them: each network's parameters under its own name."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from flax import nnx

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import BundleError, InputError
from spae.frozen_lm.masked_lm import BertEncoder, BertSizes
from spae.guidance import trunks
from spae.pursuit import Pursuit
from spae.pursuit import Sizes as PursuitSizes
from spae.vocabulary import Vocabulary
from spae.weights.parameters import flatten, restore

# What training leaves as it is.
FROZEN = ("trunk", "pursuit", "language_model")


@dataclass(frozen=True)
class Parts:
    """What a `Tokenizer` is made of; its own names. The trunk may be None where a package ships its weights.

    Raises:
        InputError: a part is missing, too much, or of another kind or size than the config says.
    """

    config: AutoencoderConfig
    vocabulary: Vocabulary
    model: Autoencoder
    trunk: nnx.Module | None = None
    info: Mapping[str, Any] | None = None
    language_model: BertEncoder | None = None
    pursuit: Pursuit | None = None

    def __post_init__(self) -> None:
        trunks.check(self.config.trunk, self.trunk)
        if (self.pursuit is not None) != (self.config.meaning == "pursuit"):
            raise InputError(
                f"wanted a pursuit as config.meaning {self.config.meaning!r} says, got {type(self.pursuit).__name__}"
            )
        if (self.language_model is not None) != (self.config.language_model == "masked"):
            raise InputError(
                f"wanted a language model as config.language_model {self.config.language_model!r} says, "
                f"got {type(self.language_model).__name__}"
            )
        if self.language_model is not None:
            self._check_size(self.language_model.sizes)

    def _check_size(self, sizes: BertSizes) -> None:
        width, words = self.vocabulary.codebook("appearance").shape[1], self.config.shape.tokens(1)
        if sizes.width != width or sizes.longest < words:
            raise InputError(
                f"wanted a language model that reads {words} words of width {width}, got one for {sizes.longest} of "
                f"width {sizes.width}: take its own vocabulary with --view raw, and a grid that it can read"
            )


def read_parts(name: Any) -> Parts:
    """The parts in a bundle: a shipped one's name, a folder, or a remote path.

    Raises:
        BundleError: no bundle is there, or it is damaged or of another version.
    """
    info, files = bundle.read(name, "tokenizer")
    try:
        config = AutoencoderConfig.from_json(info["config"])
        vocabulary = Vocabulary.from_parts(
            files["vocabulary.safetensors"], files["words.json"], info["vocabulary"]
        )
        params = files["params.safetensors"]
        builders = _frozen_builders(config, info)
    except (KeyError, TypeError) as error:
        raise BundleError(f"the bundle {name} lacks or has one field too many: {error}") from error
    frozen = {part: restore(build, params, f"{part}.") for part, build in builders.items()}
    build = partial(
        Autoencoder,
        config,
        vocabulary.codebook("appearance").shape[1],
        vocabulary.codebook("meaning").shape[1],
        frozen["trunk"].width if "trunk" in frozen else 0,
        len(vocabulary),
    )
    model = restore(lambda rngs: build(rngs=rngs), params, "autoencoder.")
    extra = [key for key in params if key.partition(".")[0] not in ("autoencoder", *FROZEN)]
    if extra:
        raise BundleError(f"the bundle {name} has parameters that no part of it knows: {extra[:3]}")
    known = ("format", "version", "files", "config", "vocabulary", *FROZEN)
    return Parts(config, vocabulary, model, info={k: v for k, v in info.items() if k not in known}, **frozen)


def arrays(params: nnx.State, frozen: Mapping[str, nnx.Module | None]) -> dict[str, np.ndarray]:
    """The parameters of all networks by name; `frozen`: those of `FROZEN` that there are, by name."""
    named = flatten(params, "autoencoder.")
    for name, network in frozen.items():
        if network is not None:
            named |= flatten(nnx.state(network), f"{name}.")
    return named


def fingerprint(config: AutoencoderConfig, tensors: Mapping[str, np.ndarray], words: Sequence[str]) -> str:
    """sha256 over an architecture, all parameters and tables by name, and the words, in hexadecimal."""
    # Only what differs from the defaults: a field that a later version adds does not change what a bundle is.
    chosen = sorted(
        (field.name, value)
        for field in fields(config)
        if (value := getattr(config, field.name)) != field.default
    )
    digest = hashlib.sha256(repr(chosen).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update("\n".join(words).encode())
    return digest.hexdigest()


def _frozen_builders(
    config: AutoencoderConfig, info: Mapping[str, Any]
) -> dict[str, Callable[[nnx.Rngs], nnx.Module]]:
    """What makes each frozen part that a bundle has, without its parameters."""
    builders: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {}
    if config.trunk != "none":
        builders["trunk"] = trunks.builder(config.trunk, info.get("trunk", {}))
    if config.language_model != "none":
        sizes = BertSizes(**info["language_model"])
        builders["language_model"] = lambda rngs: BertEncoder(sizes, rngs=rngs)
    if config.meaning == "pursuit":
        pursued = PursuitSizes(**info["pursuit"])
        builders["pursuit"] = lambda rngs: Pursuit.of(config, pursued)
    return builders
