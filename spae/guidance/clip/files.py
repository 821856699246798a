"""The files of a CLIP model as users have them: where they lie, what they are called, what their sizes are.

Weights come in two sets of names: Hugging Face's, and OpenAI's, which open_clip shares. The second is brought
to the first. Sizes are read off the tensors; what tensors cannot say (how many heads, which activation, how
pixels are scaled) stands in config.json or open_clip_config.json beside them.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spae.errors import InputError
from spae.guidance.clip.towers import ImageSizes, TextSizes
from spae.weights.hub import download_hint

ACTIVATIONS = ("quick_gelu", "gelu")
_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors")
_HEAD_WIDTH = 64  # of every published CLIP, unless its config says otherwise
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
# Numbers that OpenAI's own files carry beside the tensors; open_clip's do not.
_OPENAI_ONLY = ("input_resolution", "context_length", "vocab_size")


def find_weights(path: Path) -> Path:
    """The safetensors file at `path`, which is the file itself or its folder.

    Raises:
        InputError: none there, or several and none of the usual names.
    """
    if path.is_file():
        return path
    for name in _WEIGHTS:
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise InputError(
            f"expected one safetensors file of CLIP at {path}, found {len(found)}: name the file, or convert "
            f"the weights with their publisher's tools (pickled weights are not read){download_hint(path)}"
        )
    return found[0]


@dataclass(frozen=True)
class Settings:
    """What tensors cannot say; None where no config says it either."""

    activation: str | None = None
    image_heads: int | None = None
    text_heads: int | None = None
    mean: tuple[float, ...] = _MEAN
    deviation: tuple[float, ...] = _DEVIATION


def read_settings(folder: Path) -> Settings:
    """From config.json (and preprocessor_config.json) or open_clip_config.json; defaults where neither is."""
    try:
        if (folder / "config.json").is_file():
            config = json.loads((folder / "config.json").read_text("utf-8"))
            return _hugging_face_settings(config, folder)
        if (folder / "open_clip_config.json").is_file():
            return _open_clip_settings(json.loads((folder / "open_clip_config.json").read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"expected the config of a CLIP model in {folder}, got something else ({error!r}): copy it again"
        ) from error
    return Settings()


def _hugging_face_settings(config: dict[str, Any], folder: Path) -> Settings:
    # What a config leaves out has the value of ViT-B/32, as its library defines it.
    image, text = config.get("vision_config", {}), config.get("text_config", {})
    activations = {part.get("hidden_act", "quick_gelu") for part in (image, text)}
    if len(activations) != 1:
        raise InputError(f"expected one activation in {folder / 'config.json'}, got {sorted(activations)}")
    pixels = folder / "preprocessor_config.json"
    scale = json.loads(pixels.read_text("utf-8")) if pixels.is_file() else {}
    return Settings(
        activations.pop(),
        image.get("num_attention_heads", 12),
        text.get("num_attention_heads", 8),
        tuple(scale.get("image_mean", _MEAN)),
        tuple(scale.get("image_std", _DEVIATION)),
    )


def _open_clip_settings(config: dict[str, Any]) -> Settings:
    model, scale = config["model_cfg"], config.get("preprocess_cfg", {})
    image, text = model["vision_cfg"], model["text_cfg"]
    return Settings(
        "quick_gelu" if model.get("quick_gelu") else "gelu",
        image["width"] // image.get("head_width", _HEAD_WIDTH),
        text["heads"],
        tuple(scale.get("mean", _MEAN)),
        tuple(scale.get("std", _DEVIATION)),
    )


_RENAMED = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"(?<=\d)\.ln_1\.", ".layer_norm1."),
    (r"(?<=\d)\.ln_2\.", ".layer_norm2."),
    (r"(?<=\d)\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"(?<=\d)\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"(?<=\d)\.attn\.out_proj\.", ".self_attn.out_proj."),
)


def to_hugging_face(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Settings]:
    """The tensors under Hugging Face's names, whichever they came in, and what names tell of the settings.

    Names that are in neither set stay as they are: whoever takes the tensors finds them left over.
    """
    if "visual.class_embedding" not in tensors:
        return tensors, Settings()
    tensors = dict(tensors)
    openai = all(name in tensors for name in _OPENAI_ONLY)
    for name in _OPENAI_ONLY:
        tensors.pop(name, None)
    renamed = {}
    for name, tensor in tensors.items():
        if joint := re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", name):
            thirds = np.split(tensor, 3)  # query, key and value lie in one tensor
            layer = f"{joint[1]}.self_attn"
            new = {
                f"{layer}.{part}_proj.{joint[2]}": third for part, third in zip("qkv", thirds, strict=True)
            }
        elif name in ("visual.proj", "text_projection"):
            new = {
                "visual_projection.weight" if name == "visual.proj" else "text_projection.weight": tensor.T
            }
        else:
            new = {name: tensor}
        for old, value in new.items():
            for pattern, replacement in _RENAMED:
                old = re.sub(pattern, replacement, old)
            renamed[old] = value
    return renamed, Settings("quick_gelu" if openai else None)


def sizes(
    tensors: dict[str, np.ndarray], settings: Settings, activation: str, end: int
) -> tuple[ImageSizes, TextSizes]:
    """Read off tensors in Hugging Face's names. `end`: id of the end symbol.

    Raises:
        InputError: a tensor that tells a size is missing or of another rank.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in tensors or tensors[name].ndim != rank:
            raise InputError(
                f"expected weights of a CLIP with two transformers, with a tensor {name!r} of rank {rank}; "
                f"it is not there: the file has {', '.join(sorted(tensors)[:3])}, ..."
            )
        return tensors[name].shape

    def transformer(side: str, heads: int | None) -> dict[str, Any]:
        inner, width = shape(f"{side}.encoder.layers.0.mlp.fc1.weight", 2)
        numbers = [re.match(rf"{side}\.encoder\.layers\.(\d+)\.", name) for name in tensors]
        layers = 1 + max(int(number[1]) for number in numbers if number)
        heads = heads or width // _HEAD_WIDTH
        if not heads or width % heads:
            raise InputError(
                f"expected a width that {heads} heads divide in the {side}, got {width}: put config.json or "
                "open_clip_config.json beside the weights"
            )
        return {"width": width, "inner": inner, "layers": layers, "heads": heads, "activation": activation}

    patch = shape("vision_model.embeddings.patch_embedding.weight", 4)[-1]
    positions = shape("vision_model.embeddings.position_embedding.weight", 2)[0]
    vocabulary = shape("text_model.embeddings.token_embedding.weight", 2)[0]
    context = shape("text_model.embeddings.position_embedding.weight", 2)[0]
    image = ImageSizes(
        **transformer("vision_model", settings.image_heads),
        image_size=round((positions - 1) ** 0.5) * patch,
        patch=patch,
        out=shape("visual_projection.weight", 2)[0],
        mean=settings.mean,
        deviation=settings.deviation,
    )
    text = TextSizes(
        **transformer("text_model", settings.text_heads),
        vocabulary=vocabulary,
        context=context,
        end=end,
        out=shape("text_projection.weight", 2)[0],
    )
    if image.out != text.out:
        raise InputError(f"expected images and texts in one space, got widths {image.out} and {text.out}")
    return image, text
