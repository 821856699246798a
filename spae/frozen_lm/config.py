"""The shape of a decoder-only language model, read from GGUF metadata or a Hugging Face config.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spae.errors import InputError

ARCHITECTURES = ("llama", "qwen2", "gemma3")
# Names in config.json (`model_type`) and GGUF (`general.architecture`) of the architectures that are the same.
_ALIASES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
}
# What Gemma 3's files leave out where it is the same for all of its sizes.
_GEMMA3_LOCAL_BASE = 10_000.0
_GEMMA3_GLOBAL_EVERY = 6


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How the rotations of long-context models are slowed down.

    kind: "linear": all by `factor`; "llama3": the slow ones by `factor`, the fast ones not at all, smoothly
    between, by how often they turn within `original_context` (Llama 3.1); "factors": frequency i by
    `factors[i]`, which is how GGUF stores "llama3".
    """

    kind: str
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original_context: int = 8192
    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        found = (self.factor, self.low, self.high, self.original_context, *self.factors)
        if not all(_is_above_0(one) for one in found):
            raise InputError(
                f"model: wanted numbers above 0 to scale rotations by; got {self}: damaged config?"
            )


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """A Llama-family decoder. Sizes are numbers of scalars unless they say otherwise."""

    architecture: str  # one of ARCHITECTURES
    vocabulary: int  # rows of the embedding table
    width: int
    hidden: int  # of the feed-forward layers
    layers: int
    heads: int
    kv_heads: int  # heads that share keys and values: heads / kv_heads queries read each
    head_size: int
    context_length: int  # tokens
    epsilon: float  # inside RMSNorm
    rope_base: float
    rope_scaling: RopeScaling | None = None
    tied: bool = True  # the embedding table is the output head too
    attention_scale: float  # queries are multiplied by it
    # Gemma 3: layers where `sliding` is true see the last `window` tokens only, with a rotation of their own.
    window: int | None = None
    sliding: tuple[bool, ...] = ()
    rope_base_local: float = _GEMMA3_LOCAL_BASE

    def __post_init__(self) -> None:
        ours = (self.vocabulary, self.width, self.hidden, self.layers, self.heads, self.kv_heads)
        sizes = (*ours, self.head_size, self.context_length)
        if not all(isinstance(one, int) and one >= 1 for one in sizes) or self.head_size % 2:
            raise InputError(
                f"model: wanted each size as one whole number from 1, and an even head size; got {self}"
            )
        if not all(map(_is_above_0, (self.epsilon, self.rope_base, self.attention_scale))):
            raise InputError(f"model: wanted epsilon, rope_base and attention_scale above 0; got {self}")
        if self.heads % self.kv_heads:
            raise InputError(
                f"model: wanted kv_heads to divide heads; got {self.kv_heads} and {self.heads}: damaged config?"
            )
        if len(self.sliding) not in (0, self.layers):
            raise InputError(
                f"model: wanted a kind of attention for each of {self.layers} layers; got {len(self.sliding)}"
            )

    @property
    def gemma(self) -> bool:
        """Norms behind attention and feed-forward too, normed queries and keys, GELU, scaled embeddings."""
        return self.architecture == "gemma3"

    @property
    def biases(self) -> bool:
        """Whether queries, keys and values have biases."""
        return self.architecture == "qwen2"

    @property
    def embedding_scale(self) -> float:
        return math.sqrt(self.width) if self.gemma else 1.0

    def slides(self, layer: int) -> bool:
        """Whether the layer (from 0) sees the last `window` tokens only."""
        return bool(self.sliding) and self.sliding[layer]


def from_gguf(
    metadata: Mapping[str, Any], vocabulary: int, tied: bool, rope_factors: tuple[float, ...]
) -> LMConfig:
    """The config in GGUF metadata; `vocabulary`, `tied` and `rope_factors` (() if none) are in its tensors.

    Raises:
        InputError: an architecture that is not known here, or a key that is missing.
    """
    name = str(metadata.get("general.architecture"))
    architecture = _architecture(name)

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"{name}.{key}", default)
        if value is None:
            raise InputError(f"model: the GGUF file has no {name}.{key}; is it whole?")
        return value

    keys = ("embedding_length", "attention.head_count", "block_count")
    width, heads, layers = (get(key) for key in keys)
    if not all(isinstance(size, int) and size > 0 for size in (width, heads, layers)):
        raise InputError(
            f"model: wanted {', '.join(keys)} of the GGUF file as one number from 1 each, the same for all layers; "
            f"got {width}, {heads}, {layers}"
        )
    head_size = get("attention.key_length", width // heads)
    if (turned := get("rope.dimension_count", head_size)) != head_size:
        raise InputError(
            f"model: heads of {head_size} of which {turned} are turned by their place are not known here"
        )
    scaling = _gguf_scaling(metadata, name, rope_factors)
    gemma: dict[str, Any] = {}
    if architecture == "gemma3":
        gemma = {
            "window": get("attention.sliding_window"),
            "sliding": _every(layers, _GEMMA3_GLOBAL_EVERY),
            "rope_base_local": float(get("rope.freq_base_swa", _GEMMA3_LOCAL_BASE)),
        }
        # The largest Gemma 3 (62 layers) scales by the width of a head were it width / heads.
        scale = (width // heads if layers == 62 else head_size) ** -0.5
    else:
        scale = head_size**-0.5
    return LMConfig(
        architecture=architecture,
        vocabulary=vocabulary,
        width=width,
        hidden=get("feed_forward_length"),
        layers=layers,
        heads=heads,
        kv_heads=get("attention.head_count_kv", heads),
        head_size=head_size,
        context_length=get("context_length"),
        epsilon=get("attention.layer_norm_rms_epsilon"),
        rope_base=float(get("rope.freq_base", 1_000_000.0 if architecture == "gemma3" else 10_000.0)),
        rope_scaling=scaling,
        tied=tied,
        attention_scale=scale,
        **gemma,
    )


def from_hugging_face(settings: Mapping[str, Any]) -> LMConfig:
    """The config in a Hugging Face config.json, of transformers 4 or 5.

    Raises:
        InputError: an architecture that is not known here, a key that is missing, or one set to what this model does
            not do.
    """
    architecture = _architecture(settings.get("model_type"))
    _check_plain(settings, "gelu_pytorch_tanh" if architecture == "gemma3" else "silu")
    if architecture == "llama" and settings.get("sliding_window") is not None:
        raise InputError("model: a sliding window in all layers (Mistral 7B v0.1) is not known here")
    try:
        width, heads, layers = (
            settings[key] for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")
        )
        head_size = settings.get("head_dim") or width // heads
        rope = settings.get("rope_parameters") or {}
        base, scale, gemma = 10_000.0, head_size**-0.5, {}
        if architecture == "gemma3":
            gemma = _gemma3(settings, layers, rope.get("sliding_attention", {}))
            rope = rope.get("full_attention", {})
            base, scale = 1_000_000.0, settings["query_pre_attn_scalar"] ** -0.5
        return LMConfig(
            architecture=architecture,
            vocabulary=settings["vocab_size"],
            width=width,
            hidden=settings["intermediate_size"],
            layers=layers,
            heads=heads,
            kv_heads=settings.get("num_key_value_heads") or heads,
            head_size=head_size,
            context_length=settings["max_position_embeddings"],
            epsilon=settings["rms_norm_eps"],
            rope_base=float(rope.get("rope_theta") or settings.get("rope_theta") or base),
            rope_scaling=_hugging_face_scaling(rope or settings.get("rope_scaling") or {}),
            tied=settings.get("tie_word_embeddings", architecture == "gemma3"),
            attention_scale=scale,
            **gemma,
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"model: config.json lacks {error} or has another type there") from error


def _check_plain(settings: Mapping[str, Any], activation: str) -> None:
    """Refuses a key that is set to what this model does not do."""
    plain = {
        "attention_bias": False,
        "mlp_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "use_sliding_window": False,
        "use_bidirectional_attention": False,
        "hidden_act": activation,
        "hidden_activation": activation,
        "partial_rotary_factor": 1,
    }
    for key, wanted in plain.items():
        if settings.get(key) not in (wanted, None):
            raise InputError(
                f"model: {key} = {settings[key]!r} in config.json is not known here; wanted {wanted!r}"
            )


def _gemma3(settings: Mapping[str, Any], layers: int, local: Mapping[str, Any]) -> dict[str, Any]:
    """What Gemma 3 has alone: layers that look back a window; `local`: how those turn positions."""
    every = settings.get("sliding_window_pattern") or _GEMMA3_GLOBAL_EVERY
    kinds = settings.get("layer_types")
    sliding = tuple(kind == "sliding_attention" for kind in kinds) if kinds else _every(layers, every)
    base = local.get("rope_theta") or settings.get("rope_local_base_freq") or _GEMMA3_LOCAL_BASE
    return {"window": settings["sliding_window"], "sliding": sliding, "rope_base_local": float(base)}


def _is_above_0(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _architecture(name: Any) -> str:
    if name not in _ALIASES:
        raise InputError(f"model: wanted one of {', '.join(_ALIASES)}; got a model of the type {name!r}")
    return _ALIASES[name]


def _every(layers: int, period: int) -> tuple[bool, ...]:
    """Which layers slide when every `period`-th sees everything."""
    return tuple((i + 1) % period != 0 for i in range(layers))


def _gguf_scaling(
    metadata: Mapping[str, Any], name: str, rope_factors: tuple[float, ...]
) -> RopeScaling | None:
    if rope_factors:
        return RopeScaling(kind="factors", factors=rope_factors)
    # As llama.cpp reads it: linear where nothing is said, by the older of two keys if need be.
    kind = metadata.get(f"{name}.rope.scaling.type", "linear")
    if kind == "none":
        return None
    if kind != "linear":
        raise InputError(f"model: rotations scaled by {kind!r} are not known here; wanted none or linear")
    factor = metadata.get(f"{name}.rope.scaling.factor", metadata.get(f"{name}.rope.scale_linear", 1.0))
    return None if factor == 1 else RopeScaling(kind="linear", factor=factor)


def _hugging_face_scaling(settings: Mapping[str, Any]) -> RopeScaling | None:
    kind = settings.get("rope_type") or settings.get("type")
    if kind == "default" or (kind is None and "factor" not in settings):
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=settings["factor"])
    if kind == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=settings["factor"],
            low=settings["low_freq_factor"],
            high=settings["high_freq_factor"],
            original_context=settings["original_max_position_embeddings"],
        )
    raise InputError(f"model: rotations scaled by {kind!r} are not known here; wanted linear or llama3")
