"""A connector's step from shapes alone, for `--dry-run`: what the config names need not be there."""

import json
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
    """Field -> what looks whether its files are there, and raises InputError or OSError if they are not."""
    data = config.data
    looks = {"data.train": partial(open_said, data.train, data.train_split, data)}
    if data.validation is not None:
        looks["data.validation"] = partial(open_said, data.validation, data.validation_split, data)
    return looks | {
        "trunk": partial(load_trunk, config.trunk),
        "language_model": partial(_there, config.language_model),
    }


def _there(language_model: str) -> None:
    if language_model != "default" and not Path(language_model).exists():
        raise InputError(f"nothing at {language_model}: wanted a GGUF file or a Hugging Face folder")


def _trunk(name: str) -> Trunk:
    kind, place = parse_trunk(name)
    if kind == "clip" and Path(place).exists():
        return load_trunk(name)
    network: Any
    if kind == "clip":
        network = abstract(lambda rngs: ClipImageTower(VIT_L14, rngs=rngs))
        return Trunk(kind, network, VIT_L14.image_size, CLIP_LAYERS, "")
    network = abstract(lambda rngs: efficientnet.EfficientNetLite0(rngs=rngs))
    return Trunk(kind, network, efficientnet.IMAGE_SIZE, EFFICIENTNET_LAYERS, "")


def _language_model(name: str) -> LMConfig:
    if name != "default" and not Path(name).exists():
        return LLAMA_7B
    if Path(name).is_dir():
        return from_hugging_face(json.loads((Path(name) / "config.json").read_text("utf-8")))
    return frozen_lm.load(name).config


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
