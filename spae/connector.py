"""Connectors: a small learned map from what a frozen network sees to soft tokens of a frozen language model.

Kinds, and where they are from:

    frozen      one pooled vector -> Linear -> 2 tokens (Frozen, arXiv 2106.13884)
    linear      a token for each cell of the map: Linear (LLaVA, arXiv 2304.08485)
    mlp         the same: Linear, GELU, Linear (LLaVA 1.5, arXiv 2310.03744)
    multilayer  the same of several layers side by side: LayerNorm, Linear, GELU, Linear (ViP-LLaVA, arXiv 2312.00784)

>>> lm = spae.frozen_lm.load()
>>> connector = spae.connector.load("build/connector_frozen/bundle")
>>> prompt = connector.prompt(lm, "Image: <image>", [image])
>>> lm.generate([prompt], 8)[0].text
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jaxtyping import Array, Float, Float32, UInt8
from PIL import Image

from spae import bundle
from spae.compiled import in_parts, padded
from spae.connector_config import FROZEN_TOKENS, ConnectorConfig
from spae.errors import BundleError, InputError
from spae.files import write_file
from spae.frozen_lm import SOFT, FrozenLM, SoftPrompt
from spae.guidance.features import Trunk, features, features_shape, load_trunk
from spae.images import to_array
from spae.splice import encode, splice
from spae.weights.parameters import flatten, restore

KIND: Final = "connector"  # what its bundle says it is
_PARAMS = "connector.safetensors"


@dataclass(frozen=True)
class Reader:
    """The language model that a connector was made for: its name, the width of its vectors, and the sha256 of its
    parameters and of its tokens."""

    name: str
    width: int
    sha256: str
    tokens_sha256: str

    @classmethod
    def of(cls, lm: FrozenLM) -> "Reader":
        return cls(lm.name, lm.config.width, lm.sha256(), lm.tokenizer.sha256)


class ConnectorNetwork(nnx.Module):
    """All that is trained: features (B, n, c) -> soft tokens (B, m, D); m = n, of kind "frozen" 2."""

    def __init__(self, config: ConnectorConfig, width_in: int, width: int, *, rngs: nnx.Rngs):
        out = width * FROZEN_TOKENS if config.kind == "frozen" else width
        self.norm = nnx.LayerNorm(width_in, epsilon=1e-5, rngs=rngs) if config.kind == "multilayer" else None
        self.first = nnx.Linear(width_in, out, rngs=rngs)
        self.second = nnx.Linear(out, out, rngs=rngs) if config.kind in ("mlp", "multilayer") else None
        self.width = width

    def __call__(self, features_bnc: Float[Array, "b n c"]) -> Float[Array, "b m d"]:
        x = self.first(features_bnc if self.norm is None else self.norm(features_bnc))
        if self.second is not None:
            x = self.second(jax.nn.gelu(x, approximate=False))
        return x.reshape(len(x), -1, self.width)


def build(config: ConnectorConfig, trunk: Trunk, width: int, rngs: nnx.Rngs) -> ConnectorNetwork:
    """A network of random parameters between a trunk and a language model of this width."""
    _, width_in = features_shape(trunk, config.look, config.grid)
    return ConnectorNetwork(config, width_in, width, rngs=rngs)


class Connector:
    """A trained connector; `load` gets one from disk.

    Args:
        config: its kind.
        network: its parameters.
        trunk: the frozen network that it looks through.
        reader: the language model that it was trained with.
        info: how it was trained, kept in bundle.json.

    Attributes:
        config, trunk, reader, info: those.
        tokens: soft tokens of each image.
    """

    def __init__(
        self,
        config: ConnectorConfig,
        network: ConnectorNetwork,
        trunk: Trunk,
        reader: Reader,
        info: Mapping[str, Any] | None = None,
    ):
        self.config, self.trunk, self.reader, self.info = config, trunk, reader, dict(info or {})
        cells, _ = features_shape(trunk, config.look, config.grid)
        self.tokens = FROZEN_TOKENS if config.kind == "frozen" else cells
        graph, self._state = nnx.split((network, trunk.network))

        @jax.jit
        def see(state: nnx.State, images_bhwc: UInt8[Array, "b s s 3"]) -> Float[Array, "b m d"]:
            network, frozen = nnx.merge(graph, state)
            images_bhwc = images_bhwc.astype(jnp.float32) / 255
            return network(features(frozen, images_bhwc, config.look, trunk.layers, config.grid))

        self._see = see
        self._network = network

    def soft_tokens(
        self, images: Sequence[Image.Image | UInt8[np.ndarray, "h w 3"]]
    ) -> Float32[np.ndarray, "b m d"]:
        """Of each image, of which the central square is seen, float32 (b, tokens, width of the language model).

        Raises:
            InputError: not an image.
        """
        squares = [to_array(image, self.trunk.image_size) for image in images]
        found = [np.zeros((0, self.tokens, self.reader.width), np.float32)]
        for part in in_parts(squares):
            found.append(np.asarray(self._see(self._state, padded(np.stack(part))))[: len(part)])
        return np.concatenate(found)

    def prompt(
        self, lm: FrozenLM, text: str, images: Sequence[Image.Image | UInt8[np.ndarray, "h w 3"]]
    ) -> SoftPrompt:
        """A text with `<image>` for each of the images, as `lm.generate` and `lm.score` take it.

        Raises:
            InputError: another number of images than of `<image>`, not an image, or another language model.
        """
        self.check(lm)
        ids, labels = encode(lm, [(text, "")])
        spliced = splice(ids, labels, [self.tokens] * len(images))
        return spliced.prompt(self.soft_tokens(images).reshape(-1, self.reader.width))

    def check(self, lm: FrozenLM) -> None:
        """That this is the language model that the connector was trained with, by its width; `load` compares every
        bit of it.

        Raises:
            InputError: it is of another width.
        """
        if lm.config.width != self.reader.width:
            raise InputError(
                f"wanted the language model {self.reader.name} of width {self.reader.width} for this connector, got "
                f"{lm.name} of width {lm.config.width}: soft tokens are of one model only"
            )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a bundle of its own: connector.safetensors, and bundle.json with the trunk's and the language model's
        names and checksums. Neither of them is in it.

        Raises:
            InputError: what is there is no bundle.
            OSError: it cannot be written.
        """
        known = {
            "kind": KIND,
            "config": asdict(self.config),
            "trunk": {"kind": self.trunk.kind, "sha256": self.trunk.sha256},
            "reader": asdict(self.reader),
            "tokens": self.tokens,
        }
        params = flatten(nnx.state(self._network), "")
        bundle.write(folder, {**self.info, **known}, {_PARAMS: params})


def load(name: str | os.PathLike[str], lm: FrozenLM | None = None, trunk: str | None = None) -> Connector:
    """A connector from its bundle.

    Args:
        name: a folder, or a remote path such as gs://bucket/folder.
        lm: the language model, compared bit by bit with the one that it was trained with; None: not yet at hand.
        trunk: where the trunk is, as `spae.guidance.features.load_trunk` takes it; None: "efficientnet", whose package
            has it. A CLIP's place has to be given.

    Raises:
        InputError: another language model or another trunk than it was trained with, or the trunk is not there.
        BundleError: no bundle is there, it is damaged, or it is no connector's.
    """
    info, files = bundle.read(name, KIND)
    try:
        config, reader = ConnectorConfig(**info["config"]), Reader(**info["reader"])
        kind, sha256, params = info["trunk"]["kind"], info["trunk"]["sha256"], files[_PARAMS]
    except (KeyError, TypeError, InputError) as error:
        raise BundleError(f"the bundle {name} lacks or has one field too many: {error}") from error
    if lm is not None:
        _check_reader(reader, lm)
    if trunk is None and kind != "efficientnet":
        raise InputError(
            f"the connector {name} looks through a {kind}, which is not in it: give trunk={kind}:PATH"
        )
    found = load_trunk(trunk or kind)
    if (found.kind, found.sha256) != (kind, sha256):
        raise InputError(
            f"the connector {name} was trained with another trunk, a {kind} of sha256 {sha256[:12]}..; got a "
            f"{found.kind} of {found.sha256[:12]}..: give the one that it was trained with"
        )
    network = restore(lambda rngs: build(config, found, reader.width, rngs), params, "")
    known = ("format", "version", "files", "kind", "config", "trunk", "reader", "tokens")
    return Connector(config, network, found, reader, {k: v for k, v in info.items() if k not in known})


def _check_reader(reader: Reader, lm: FrozenLM) -> None:
    given = Reader.of(lm)
    for what, wanted, got in (
        ("width", reader.width, given.width),
        ("tokens of sha256", reader.tokens_sha256, given.tokens_sha256),
        ("parameters of sha256", reader.sha256, given.sha256),
    ):
        if wanted != got:
            raise InputError(
                f"the connector was trained with the language model {reader.name}, {what} {wanted}; got {given.name}, "
                f"{what} {got}: soft tokens are of one model only, give that one"
            )


def prompt_embeddings(lm: FrozenLM, prompt: SoftPrompt) -> Float32[np.ndarray, "n d"]:
    """What the first layer takes at every place of a prompt, float32 (n, d): for engines that accept prompt embeddings.

    Raises:
        InputError: a prompt of another model.
    """
    rows_nd = np.array(lm.embed([max(id_, 0) for id_ in prompt.ids]))
    if prompt.vectors.shape[1] != rows_nd.shape[1]:
        raise InputError(
            f"wanted vectors of width {rows_nd.shape[1]} for {lm.name}, got {prompt.vectors.shape[1]}: they are of "
            "another model"
        )
    rows_nd[np.array(prompt.ids) == SOFT] = prompt.vectors
    return rows_nd


def export(path: str | os.PathLike[str], lm: FrozenLM, prompt: SoftPrompt) -> None:
    """Write `prompt_embeddings` as the tensor "prompt_embeds" of a .safetensors file.

    Raises:
        InputError: a prompt of another model, another ending, or the file cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise InputError(f"wanted the name of a .safetensors file to write, got {os.fspath(path)!r}")
    write_file(path, safetensors.numpy.save({"prompt_embeds": prompt_embeddings(lm, prompt)}))
