"""What a tokenizer is made of: every choice that, with a vocabulary, defines its function; checked once, here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spae.bounds import Count, Positive, check_fields
from spae.errors import InputError
from spae.pyramid import PyramidShape
from spae.quantize import Fill


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Everything that, with a vocabulary, defines a tokenizer's function."""

    image_size: Positive = 64  # pixels a side
    # side of every layer, top to bottom; (t, h, w) of every layer for clips
    pyramid: tuple[int, ...] | tuple[tuple[int, int, int], ...] = (1, 2, 4, 8, 16, 16)
    # "vit": `filters` wide, `blocks` deep, one latent a patch (LQAE); "linear": nothing but the paths of `skip`.
    network: Literal["cnn", "vit", "linear"] = "cnn"
    # of the CNN: the paper's, of two full convolutions, or a depth-wise and two 1x1 ones
    block: Literal["residual", "depthwise"] = "residual"
    heads: Positive = 8  # of the ViT's attention
    filters: Positive = 128  # channels at full resolution
    multipliers: tuple[Positive, ...] = (1, 2, 2, 4)  # of `filters`, per scale
    blocks: Positive = 2  # residual blocks per scale, and again as bottleneck
    downsamplings: Count = 2  # the first so many scales end in a halving
    patch: Positive = 1  # pixels a side folded into channels before the first convolution (1 in the paper)
    skip: bool = False  # a linear path beside each network, patches to latents and back (none in the paper)
    # What is searched: see Autoencoder.codebook.
    codebook: Literal["frozen", "learned", "projected", "mapped"] = "frozen"
    # With codebook "mapped": width of the latents. Else they have that of the appearance view.
    latents: int | None = None
    # With codebook "mapped": hidden units of a perceptron beside the linear map; 0: none.
    map_width: Count = 0
    meaning_layers: Count = 0  # the first so many layers choose words by meaning (0 in the paper)
    # How they choose: by a trained head; the words nearest to the trunk's features, best first (V2L); or words that add
    # up to what the trunk sees in each region (spae/pursuit.py).
    meaning: Literal["head", "ranked", "pursuit"] = "head"
    # With pursuit, for each meaning layer: among how many of the best words the nearest in appearance is taken.
    pools: tuple[int, ...] = ()
    # Their words enter the average with those that z chooses (the paper), or are shown in their own prefixes only.
    meaning_words: Literal["averaged", "apart"] = "averaged"
    cross_attention: bool = False  # the decoder also looks at the vectors of the meaning layers' words (V2L)
    head_width: Positive = 512  # hidden units of the meaning head
    # Frozen network that feeds the meaning head; none: the encoder does.
    trunk: Literal["conse", "clip", "none"] = "none"
    quantizer: Literal["saq", "rq"] = "saq"  # streaming average (the paper), or residual
    unit: bool = False  # latents and codebook are scaled to length 1 for the search (LQAE)
    # A frozen masked language model reads the words, and the decoder its states instead of their embeddings (LQAE).
    language_model: Literal["none", "masked"] = "none"
    fill: Fill = "nearest"  # positions that a prefix leaves without a word
    frames: Positive = 1  # of a clip; 1: the tokenizer is one of images, and its convolutions are 2-D
    temporal_downsamplings: Count = 0  # the first so many halvings halve time as well

    def __post_init__(self):
        check_fields(self)
        if not self.multipliers or not self.pyramid:
            raise InputError(f"multipliers and pyramid have at least one entry, got {self}")
        self._check_grid()
        self._check_meaning()
        if self.network == "vit":
            self._check_vit()
        if self.network == "linear" and (not self.skip or self.cross_attention):
            raise InputError(
                'network "linear" is the paths beside the networks alone: wanted skip True and cross_attention False, '
                f"got {self.skip} and {self.cross_attention}"
            )
        if self.block == "depthwise" and self.frames > 1:
            raise InputError(f'block "depthwise" is one of images: wanted frames 1, got {self.frames}')
        if (self.latents or 0) < 1 if self.codebook == "mapped" else self.latents is not None:
            raise InputError(
                'codebook "mapped" needs latents, the width of 1 or more that it maps words to, and no other has it: '
                f"got codebook {self.codebook!r} and latents {self.latents}"
            )
        if self.map_width > 0 and self.codebook != "mapped":
            raise InputError(
                'map_width is of the perceptron beside the map of codebook "mapped": wanted 0, '
                f"got {self.map_width} with {self.codebook!r}"
            )
        self._check_pursuit()
        self._check_language_model()

    def _check_grid(self) -> None:
        """Pixels and frames, halved and in patches, are the last layer's places."""
        if self.temporal_downsamplings > self.downsamplings * (self.frames > 1):
            raise InputError(
                "temporal_downsamplings is 0 .. downsamplings (0 for images, frames=1), "
                f"got {self.temporal_downsamplings} with frames={self.frames}"
            )
        if len(self.shape.grid) != self.rank:
            raise InputError(
                f"with frames={self.frames} every layer of the pyramid is "
                f"{'a side such as 16' if self.rank == 2 else 'a triple (t, h, w)'}, got {self.pyramid}"
            )
        grid = self.image_size / self.stride
        if grid != self.shape.grid[-2] or grid != self.shape.grid[-1]:
            raise InputError(
                f"a {self.image_size}-px image in patches of {self.patch}, halved {self.downsamplings} times, has side "
                f"{grid:g}, but the last layer of the pyramid has side {self.shape.grid[-1]}: change one of "
                "--tokenizer.image-size, --tokenizer.patch, --tokenizer.downsamplings and --tokenizer.pyramid; with "
                f"the others as they are, --tokenizer.image-size {self.shape.grid[-1] * self.stride} fits"
            )
        if self.rank == 3 and self.frames / self.strides[0] != self.shape.grid[0]:
            raise InputError(
                f"{self.frames} frames, halved {self.temporal_downsamplings} times, are "
                f"{self.frames / self.strides[0]:g}, but the last layer of the pyramid has {self.shape.grid[0]}: "
                "change one of the three"
            )
        if self.downsamplings > len(self.multipliers):
            raise InputError(f"{self.downsamplings} downsamplings do not fit {len(self.multipliers)} scales")

    def _check_meaning(self) -> None:
        """There are meaning layers for what serves them alone."""
        if self.meaning_layers > len(self.shape.waves[0]):
            raise InputError(
                f"meaning_layers is 0 .. {len(self.shape.waves[0])} (the layers that share no position), "
                f"not {self.meaning_layers}"
            )
        if self.trunk != "none" and self.meaning_layers == 0:
            raise InputError(
                f'trunk "{self.trunk}" feeds the meaning head, so meaning_layers must be at least 1'
            )
        if self.meaning == "ranked" and self.trunk == "none":
            raise InputError(
                'meaning "ranked" ranks words by a trunk\'s features: name a trunk, conse or clip'
            )
        if self.cross_attention and self.meaning_layers == 0:
            raise InputError(
                "cross_attention looks at the words of the meaning layers: wanted at least 1, got 0"
            )
        if self.codebook == "learned" and self.meaning_layers > 0:
            raise InputError(
                f'the codes of codebook "learned" mean nothing: wanted meaning_layers 0, got {self.meaning_layers}'
            )

    def _check_language_model(self) -> None:
        if self.language_model == "none":
            return
        if self.codebook != "frozen":
            raise InputError(
                f'a masked language model reads its own words: wanted codebook "frozen", got {self.codebook!r}'
            )
        if len(self.pyramid) > 1 or self.frames > 1:
            raise InputError(
                "a masked language model reads one word at every position of an image: wanted a pyramid of one layer, "
                f"got {self.pyramid} and {self.frames} frames"
            )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "AutoencoderConfig":
        """As bundle.json keeps it, with lists for tuples.

        Raises:
            TypeError: a field that this version does not know.
        """
        return cls(**{name: _tuples(value) for name, value in fields.items()})

    def _check_pursuit(self) -> None:
        if self.meaning != "pursuit":
            if self.pools:
                raise InputError(f'pools are of meaning "pursuit", got {self.pools} with {self.meaning!r}')
            return
        if self.trunk == "none" or self.frames > 1 or not self.skip or self.codebook != "mapped":
            raise InputError(
                'meaning "pursuit" looks at the regions of an image through a trunk, and at the appearance of words by '
                'the linear start: wanted a trunk, frames 1, skip True and codebook "mapped", '
                f"got {self.trunk!r}, {self.frames}, {self.skip} and {self.codebook!r}"
            )
        if len(self.pools) != self.meaning_layers or min(self.pools, default=0) < 1:
            raise InputError(
                f"wanted pools of at least 1, one for each of {self.meaning_layers} meaning layers, got {self.pools}"
            )

    def _check_vit(self) -> None:
        wanted = {
            "multipliers": (1,),
            "downsamplings": 0,
            "skip": False,
            "frames": 1,
            "cross_attention": False,
        }
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise InputError(
                    f'network "vit" has one scale, no path beside it and reads images: wanted {name} {value}, '
                    f"got {getattr(self, name)}"
                )
        if self.filters % self.heads:
            raise InputError(f"heads must divide filters, got {self.heads} and {self.filters}")

    @property
    def shape(self) -> PyramidShape:
        return PyramidShape(self.pyramid)

    @property
    def apart(self) -> int:
        """Layers whose words are never averaged with those below."""
        return self.meaning_layers if self.meaning_words == "apart" else 0

    @property
    def stride(self) -> int:
        """Pixels a side that one position of the finest layer stands for."""
        return self.patch * 2**self.downsamplings

    @property
    def rank(self) -> int:
        """Axes that the convolutions run over: 2 (H, W) for images, 3 (T, H, W) for clips."""
        return 3 if self.frames > 1 else 2

    @property
    def strides(self) -> tuple[int, ...]:
        """Frames and pixels along every axis that one position of the finest layer stands for."""
        return self._cell(2**self.temporal_downsamplings, self.stride)

    @property
    def patches(self) -> tuple[int, ...]:
        """Frames and pixels along every axis that are folded into channels: patches are of one frame."""
        return self._cell(1, self.patch)

    @property
    def halvings(self) -> tuple[tuple[int, ...], ...]:
        """By how much each downsampling shrinks every axis, finest scale first."""
        times = (2 if i < self.temporal_downsamplings else 1 for i in range(self.downsamplings))
        return tuple(self._cell(time, 2) for time in times)

    def _cell(self, time: int, side: int) -> tuple[int, ...]:
        return (time, side, side)[-self.rank :]


def _tuples(value: Any) -> Any:
    """The tuples that JSON keeps as lists, at any depth."""
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
