"""A connector's step from shapes alone, for `--dry-run`: what the config names need not be there."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from spae import frozen_lm
from spae.connector import ConnectorNetwork
from spae.connector_config import parse_trunk
from spae.errors import InputError
from spae.frozen_lm.config import LMConfig, from_hugging_face
from spae.frozen_lm.model import Decoder
from spae.frozen_lm.weights import tensor_shapes
from spae.guidance import efficientnet
from spae.guidance.clip.towers import ClipImageTower, ImageSizes
from spae.guidance.features import CLIP_LAYERS, EFFICIENTNET_LAYERS, Trunk, features_shape, load_trunk
from spae.weights.hub import HUB, locate
from spae.weights.state_dict import abstract
from tokenizer_train.connector.config import ConnectorExperiment
from tokenizer_train.connector.dialogues import open_said
from tokenizer_train.connector.preparation import static_side
from tokenizer_train.connector.step import make_step

# Where a folder is not there: CLIP ViT-L/14 at 336 px and Vicuna-7B (Llama 2's shape), those of LLaVA 1.5.
VIT_L14 = ImageSizes(
    width=1024,
    inner=4096,
    layers=24,
    heads=16,
    activation="quick_gelu",
    image_size=336,
    patch=14,
    out=768,
    mean=(0.5, 0.5, 0.5),
    deviation=(0.5, 0.5, 0.5),
)
LLAMA_7B = LMConfig(
    architecture="llama",
    vocabulary=32_000,
    width=4096,
    hidden=11_008,
    layers=32,
    heads=32,
    kv_heads=32,
    head_size=128,
    context_length=4096,
    epsilon=1e-5,
    rope_base=10_000.0,
    tied=False,
    attention_scale=128**-0.5,
)


def shaped_step(config: ConnectorExperiment, mesh: Mesh) -> tuple[dict[str, Any], Any, Any, dict[str, Any]]:
    """Numbers of parameters, the jitted step, and the shapes of its state, of its constants and of its batch."""
    trunk = _trunk(config.trunk)
    lm_config = _language_model(config.language_model)

    def decoder() -> Decoder:
        shapes = tensor_shapes(lm_config).items()
        return Decoder(lm_config, {name: nnx.Param(jnp.zeros(shape)) for name, shape in shapes})

    cells, width_in = features_shape(trunk, config.connector.look, config.connector.grid)
    build = partial(ConnectorNetwork, config.connector, width_in, lm_config.width)
    tokens = jax.eval_shape(lambda: build(rngs=nnx.Rngs(0))(jnp.zeros((1, cells, width_in)))).shape[1]
    networks, fresh = static_side(config, build, trunk, nnx.eval_shape(decoder))
    state = jax.eval_shape(fresh, jax.random.key(0))
    parameters = {
        "connector": _count(state.params),
        "frozen": {
            "trunk": _count(networks.frozen.trunk),
            "language_model": _count(networks.frozen.language_model),
        },
    }
    rows, length, side = config.data.batch_size, config.data.length, trunk.image_size
    batch = {
        "images": ((rows, side, side, 3), jnp.uint8),
        "ids": ((rows, length + tokens), jnp.int32),
        "soft": ((rows, length + tokens), jnp.int32),
        "at": ((rows, length), jnp.int32),
        "said": ((rows, length), jnp.int32),
    }
    return parameters, make_step(networks, mesh).func, (state, networks.frozen), batch


def missing(config: ConnectorExperiment) -> Mapping[str, Any]:
    """Field -> what looks whether its files are there, and raises InputError or OSError if they are not; of a network
    that is not there it says whose shape is taken."""
    data = config.data
    looks = {"data.train": partial(open_said, data.train, data.train_split, data)}
    if data.validation is not None:
        looks["data.validation"] = partial(open_said, data.validation, data.validation_split, data)
    return looks | {
        "trunk": partial(_look_for_trunk, config.trunk),
        "language_model": partial(_look_for_language_model, config.language_model),
    }


def _look_for_trunk(name: str) -> None:
    try:
        load_trunk(name)
    except InputError as error:
        if _is_assumed(name):
            raise InputError(f"{error}; the shape of CLIP ViT-L/14 at 336 px is assumed") from error
        raise


def _look_for_language_model(name: str) -> None:
    try:
        _located(name)
    except InputError as error:
        raise InputError(f"{error}; the shape of Llama 7B is assumed") from error


def _located(language_model: str) -> Path:
    """The file or folder that tells its shape: of a repository of the hub its configuration alone is fetched.

    Raises:
        InputError: as `spae.frozen_lm.find`.
    """
    if re.fullmatch(f"{HUB}[^/]+/[^/]+", language_model):
        return locate(f"{language_model}/config.json").path.parent
    return frozen_lm.find(language_model).path


def _is_assumed(trunk: str) -> bool:
    kind, place = parse_trunk(trunk)
    return kind == "clip" and not Path(place).exists()


def _trunk(name: str) -> Trunk:
    kind, _ = parse_trunk(name)
    network: Any
    if _is_assumed(name):
        network = abstract(lambda rngs: ClipImageTower(VIT_L14, rngs=rngs))
        return Trunk(kind, network, VIT_L14.image_size, CLIP_LAYERS, "")
    if kind == "clip":
        return load_trunk(name)
    network = abstract(lambda rngs: efficientnet.EfficientNetLite0(rngs=rngs))
    return Trunk(kind, network, efficientnet.IMAGE_SIZE, EFFICIENTNET_LAYERS, "")


def _language_model(name: str) -> LMConfig:
    try:
        path = _located(name)
    except InputError:  # which `missing` tells
        if name == "default":
            raise
        return LLAMA_7B
    if path.is_dir():
        return from_hugging_face(json.loads((path / "config.json").read_text("utf-8")))
    return frozen_lm.load(path).config


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
