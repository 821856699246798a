"""CLIP guidance (Radford et al., arXiv 2103.00020) with weights that the user brings.

The paper's own guidance is CLIP ViT-L/14 with 80 prompt templates; any CLIP with a vision transformer serves.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from spae.errors import InputError
from spae.guidance.batches import padded
from spae.guidance.clip import files
from spae.guidance.clip.tokenizer import ClipTokenizer
from spae.guidance.clip.towers import fill_image_tower, fill_text_tower
from spae.guidance.protocol import Way
from spae.guidance.regions import compiled_regions
from spae.guidance.templates import IMAGENET_TEMPLATES
from spae.weights.files import read_tensors
from spae.weights.state_dict import StateDict

# Part of the fingerprint: raise it when the same weights would give other vectors.
_VERSION = "clip 1: bicubic, centre square"


class Clip:
    """The guidance, see `spae.guidance.protocol.Guidance`.

    Attributes:
        tower: `ClipImageTower`, the image side with these weights; callable inside jit.
    """

    name = "clip"
    templates = IMAGENET_TEMPLATES

    def __init__(self, path: str | os.PathLike[str], activation: str | None = None):
        """
        Args:
            path: a folder as published (weights in safetensors; tokenizer.json or a merges file; config.json
                or open_clip_config.json), or the safetensors file in such a folder.
            activation: "quick_gelu" (OpenAI's own weights) or "gelu" (most of open_clip's); None: as the
                config beside the weights says, or OpenAI's own file gives away.

        Raises:
            InputError: a file is missing or damaged, tensors are missing or left over, the tokenizer is
                another model's, or the activation is not known.
        """
        weights = files.find_weights(Path(path))
        tensors, told = files.to_hugging_face(read_tensors(weights))
        settings = files.read_settings(weights.parent)
        activation = activation or settings.activation or told.activation
        if activation not in files.ACTIVATIONS:
            raise InputError(
                f"expected the activation quick_gelu or gelu, got {activation}: weights alone do not tell; "
                "put config.json or open_clip_config.json beside them, or name it"
            )
        self._tokenizer, merges = ClipTokenizer.from_folder(weights.parent)
        image, text = files.sizes(tensors, settings, activation, self._tokenizer.end)
        if len(self._tokenizer) != text.vocabulary:
            raise InputError(
                f"expected a tokenizer with {text.vocabulary} ids, {merges} has {len(self._tokenizer)}: "
                "copy the one that belongs to these weights"
            )
        state = StateDict(tensors, "CLIP")
        # The scale serves training; the position ids are 0, 1, 2, ...
        state.ignore("logit_scale", *(f"{s}_model.embeddings.position_ids" for s in ("text", "vision")))
        self.tower = fill_image_tower(state, image)
        text_graph, self._text_state = nnx.split(fill_text_tower(state, text))
        state.finish()

        self._context = text.context
        self.image_size, self.width = image.image_size, image.out
        graph, self._image_state = nnx.split(self.tower)
        self._embed_images = jax.jit(lambda state, images: nnx.merge(graph, state)(images))
        self._embed_regions = compiled_regions(self.tower)
        self._embed_texts = jax.jit(lambda state, ids: nnx.merge(text_graph, state)(ids))
        content = [_VERSION, repr(image), repr(text), *self.templates]
        content += [hashlib.sha256(file.read_bytes()).hexdigest() for file in (weights, merges)]
        self.fingerprint = hashlib.sha256("\n".join(content).encode()).hexdigest()

    def images(self, images_bhwc: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """RGB images in [0, 1] of any size -> float32 rows of unit length."""
        return self._embed_images(self._image_state, images_bhwc)

    def regions(
        self, images_bhwc: Float[Array, "b h w 3"], sides: Sequence[int], way: Way = "map"
    ) -> Float[Array, "b r d"]:
        """Rows of every region of grids of these sides, see `spae.guidance.regions`.

        Raises:
            InputError: no side, or one below 1 or finer than what is cut; another way.
        """
        return self._embed_regions(images_bhwc, sides, way)

    def texts(self, texts: list[str]) -> Float[np.ndarray, "n d"]:
        """Texts -> float32 rows of unit length; texts longer than the context are cut, their end is kept."""
        sequences = [self._tokenizer.encode(text, self._context) for text in texts]
        rows = np.empty((len(texts), self.width), np.float32)
        for chosen, ids, _ in padded(sequences, self._context):
            rows[chosen] = np.asarray(self._embed_texts(self._text_state, ids))[: len(chosen)]
        return rows
