"""Guidance by models of the package clip-jax (extra `clip-jax`), which trains CLIP in JAX.

Reads a folder as that package leaves it: config.json of its CLIPModel, its newest Orbax checkpoint
`<step>/default`, and the model's tokenizer.json.
"""

import hashlib
import importlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.guidance.batches import padded
from spae.guidance.protocol import Way
from spae.guidance.regions import crop_regions
from spae.guidance.resize import resize_square
from spae.guidance.templates import IMAGENET_TEMPLATES

_VERSION = "clip-jax 1: bicubic, centre square"


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"expected the package {name} for clip-jax guidance, it does not import ({error}): "
            "pip install 'spae[clip-jax]'"
        ) from error


class ClipJax:
    """The guidance, see `spae.guidance.protocol.Guidance`."""

    name = "clip-jax"
    templates = IMAGENET_TEMPLATES

    def __init__(self, name_or_path: str | os.PathLike[str]):
        """
        Args:
            name_or_path: a folder; else the name of one on the Hugging Face Hub, downloaded if it is not in its cache.

        Raises:
            InputError: the extra `clip-jax` is not installed; there is no such folder; a file of it is missing or
                damaged; the model has no text vectors (a captioner), or images and texts have different widths.
        """
        clip_jax, tokenizers = _module("clip_jax"), _module("tokenizers")
        folder = _find(name_or_path)
        try:
            config_bytes = (folder / "config.json").read_bytes()
            config = json.loads(config_bytes)
            text, vision = config["text_config"], config["vision_config"]
            self.image_size: int = vision["image_size"]
            self._context: int = text["max_length"]
            # Learnt positions are added as they are, so every text must be as long as they.
            self._full_length: bool = text.get("position_embedding_type") == "learnt"
            vocabulary = (folder / "tokenizer.json").read_bytes()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"expected config.json and tokenizer.json of a clip-jax model in {folder}: {error!r}"
            ) from error
        if text.get("is_decoder") or not text.get("pool_type"):
            raise InputError(
                f"expected a model that pools texts to vectors, {folder} is a captioner: take a CLIP"
            )
        model = clip_jax.CLIPModel(**config)
        self._params = _restore(model, folder)
        self._tokenizer = tokenizers.Tokenizer.from_str(vocabulary.decode("utf-8"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._context)

        def embed_images(params: Any, images: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
            pixels = resize_square(images, self.image_size) * 2 - 1  # mean and deviation are 0.5
            out = model.apply({"params": params}, pixels, method=model.get_image_features)
            return _unit(out["image_embeds"])

        def embed_texts(params: Any, ids: Array, mask: Array) -> Float[Array, "b d"]:
            mask = mask.astype(jnp.int32)
            out = model.apply({"params": params}, ids, mask, method=model.get_text_features)
            return _unit(out["text_embeds"])

        def embed_crops(params: Any, images: Float[Array, "b h w 3"], sides: tuple[int, ...]) -> Array:
            return crop_regions(partial(embed_images, params), images, sides, self.image_size)

        self._embed_images, self._embed_texts = jax.jit(embed_images), jax.jit(embed_texts)
        self._embed_crops = jax.jit(embed_crops, static_argnums=2)
        pixels = jax.ShapeDtypeStruct((1, self.image_size, self.image_size, 3), jnp.float32)
        ids = jax.ShapeDtypeStruct((1, self._context), jnp.int32)
        self.width: int = jax.eval_shape(embed_images, self._params, pixels).shape[-1]
        text_width = jax.eval_shape(embed_texts, self._params, ids, ids).shape[-1]
        if self.width != text_width:
            raise InputError(
                f"expected images and texts in one space, got widths {self.width} and {text_width}"
            )
        described = "\n".join([_VERSION, *self.templates]).encode() + config_bytes + vocabulary
        self.fingerprint = _sha256(described, self._params)

    @property
    def tower(self) -> NoReturn:
        """
        Raises:
            InputError: always: the network is the package's, so a bundle could be read only where that is.
        """
        raise InputError(
            "a network of clip-jax cannot be a tokenizer's trunk, since no bundle can carry it: "
            "set tokenizer.trunk none, or take clip:PATH"
        )

    def images(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """RGB images in [0, 1] of any size -> float32 rows of unit length."""
        return self._embed_images(self._params, images_bhwc)

    def regions(
        self, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int], way: Way = "map"
    ) -> Float[Array, "b r d"]:
        """Rows of every region of grids of these sides, see `spae.guidance.regions`; by crops alone.

        Raises:
            InputError: a way other than "crops": the package shows nothing of its last attention; no side, or one
                below 1 or above the pixels of an image's shorter side.
        """
        if way != "crops":
            raise InputError(
                f"clip-jax sees regions by crops, not by {way!r}: the package gives no features before its pooling; "
                'ask for "crops"'
            )
        return self._embed_crops(self._params, images_bhwc, tuple(sides))

    def texts(self, texts: list[str]) -> Float[np.ndarray, "n d"]:
        """Texts -> float32 rows of unit length; texts longer than the context are cut."""
        sequences = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        rows = np.empty((len(texts), self.width), np.float32)
        for chosen, ids, mask in padded(sequences, self._context):
            if self._full_length:
                ids, mask = (np.pad(x, ((0, 0), (0, self._context - x.shape[1]))) for x in (ids, mask))
            rows[chosen] = np.asarray(self._embed_texts(self._params, ids, mask))[: len(chosen)]
        return rows


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    hub = _module("huggingface_hub")
    try:
        return Path(hub.snapshot_download(str(name_or_path)))
    except (OSError, ValueError) as error:  # among them every error of the hub
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"expected the folder of a clip-jax model or its name on the Hugging Face Hub, {str(name_or_path)!r} is "
            f"neither ({reason}): check the spelling"
        ) from error


def _unit(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    rows = rows.astype(jnp.float32)
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves
    }


def _restore(model: Any, folder: Path) -> Any:
    """The parameters of the newest checkpoint; optimizer state beside them is left unread."""
    checkpoint = _module("orbax.checkpoint")
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]
    path = folder / str(max(steps, default=0)) / "default"
    if not path.is_dir():
        raise InputError(
            f"expected an Orbax checkpoint <step>/default in {folder}, found none: copy it there"
        )
    shapes = jax.eval_shape(model.init_weights, jax.random.PRNGKey(0))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        {"params": shapes["params"]},
    )
    handler = checkpoint.PyTreeCheckpointHandler()
    with checkpoint.Checkpointer(handler) as checkpointer:
        try:
            stored = _shapes(checkpointer.metadata(path.resolve()).item_metadata.tree["params"])
        except (ValueError, KeyError, OSError) as error:
            raise InputError(f"expected an Orbax checkpoint with params in {path}: {error!r}") from error
        # Compared before anything is read: a read that fails half-way leaves others running behind it.
        wanted = _shapes(target["params"])
        for name in sorted(wanted.keys() | stored.keys()):
            if wanted.get(name) != stored.get(name):
                raise InputError(
                    f"expected a checkpoint of the model of {folder / 'config.json'} in {path}: the config wants "
                    f"{name} = {wanted.get(name, 'absent')}, the checkpoint has {stored.get(name, 'absent')}"
                )
        restore_args = checkpoint.checkpoint_utils.construct_restore_args(target)
        arguments = checkpoint.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
        params = checkpointer.restore(path.resolve(), args=arguments)["params"]
    # Orbax ties them to a device; images may come cut over several.
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), params)


def _sha256(described: bytes, params: Any) -> str:
    digest = hashlib.sha256(described)
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
