"""The tokenizer: images, or clips, to pyramids of words, and pyramids or plain text back to them."""

import dataclasses
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

import jax
import numpy as np
from flax import nnx
from jaxtyping import Int, UInt8
from PIL import Image

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.compiled import Compiled, in_parts, keep_compiled, padded
from spae.errors import InputError
from spae.frozen_lm.masked_lm import BertEncoder
from spae.guidance import trunks
from spae.guidance.conse import image_tower
from spae.guidance.sight import trunk_side
from spae.images import to_array, to_clip, to_square, to_uint8
from spae.palette import palette
from spae.parts import FROZEN, Parts, arrays, fingerprint, read_parts
from spae.prompt import write_prompt
from spae.pursuit import Pursuit
from spae.pyramid import Pyramid, PyramidShape, grids_text
from spae.quantize import Quantized
from spae.region import Region, look
from spae.rivals import check_count, find_rivals
from spae.text import Parsed, parse
from spae.vocabulary import Vocabulary
from spae.weights.parameters import cast

Picture = Image.Image | UInt8[np.ndarray, "h w 3"]
Clip = UInt8[np.ndarray, "t h w 3"]


class Tokenizer:
    """A trained tokenizer; `spae.load` gets one from disk.

    Args:
        config: the architecture.
        vocabulary: the words and their views.
        model: encoder, decoder and meaning head.
        trunk: the frozen network that `config.trunk` names, images (B, H, W, 3) in [0, 1] to features (B, f);
            None: "conse" is made from the package that ships its weights, "clip" must be given.
        info: provenance and metrics, kept in bundle.json.
        language_model: the frozen model that reads the words before the decoder; there if `config.language_model`
            names one.
        pursuit: the frozen choice of the meaning layers' words; there if `config.meaning` is "pursuit".

    Raises:
        InputError: the trunk is none of `config.trunk`'s kind, or the language model does not fit.
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        vocabulary: Vocabulary,
        model: Autoencoder,
        trunk: nnx.Module | None = None,
        info: Mapping[str, Any] | None = None,
        language_model: BertEncoder | None = None,
        pursuit: Pursuit | None = None,
    ):
        # Which checks that they fit.
        Parts(config, vocabulary, model, trunk, info, language_model, pursuit)
        self.config = config
        self.vocabulary = vocabulary
        self.info = dict(info or {})
        self.source = "made in this program"
        self._trunk = trunk
        self._language_model = language_model
        self.pursuit = pursuit
        self._views = {name: jax.device_put(vocabulary.codebook(name)) for name in ("appearance", "meaning")}
        self._graph = nnx.split(model)[0]
        self._compiled = Compiled(config, self._graph, lambda: (self.trunk, pursuit), language_model)
        self.replace(model)

    def replace(self, model: Autoencoder) -> None:
        """Go on with the parameters of another model of the same architecture; nothing is compiled again."""
        self._params = nnx.split(model)[1]
        appearance_vc = self._compiled.codebook(self._params, self._views["appearance"])
        self._codebooks = {**self._views, "appearance": appearance_vc}
        for made in ("fingerprint", "palette"):
            self.__dict__.pop(made, None)

    def __repr__(self) -> str:
        """What is encoded to what, the words it is told in, and where the tokenizer is from."""
        squares = f"{self.image_size}x{self.image_size} images"
        seen = squares if self.frames == 1 else f"clips of {self.frames} {squares}"
        model = self.vocabulary.language_model
        return (
            f"<Tokenizer: {seen} to {self.shape.tokens()} words ({grids_text(self.shape.layers)}) of "
            f"{len(self.vocabulary)}{' of ' + model if model else ''}; {self.source}>"
        )

    @property
    def shape(self) -> PyramidShape:
        return self.config.shape

    @property
    def image_size(self) -> int:
        """Side in pixels of the squares that are encoded and decoded."""
        return self.config.image_size

    @property
    def sight(self) -> int:
        """Side in pixels of the squares that are looked at, where an image has as much: its trunk may see more than is
        encoded. To give encode more is of no use. Of clips `image_size`."""
        seen = trunk_side(self.config.trunk, trunks.sizes(self._trunk)) if self.frames == 1 else 0
        return max(self.image_size, seen)

    @property
    def frames(self) -> int:
        """Frames of the clips that are encoded and decoded; 1: images."""
        return self.config.frames

    @property
    def parameters(self) -> nnx.State:
        """Of encoder, decoder and meaning head: all that was trained."""
        return self._params

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the architecture, the parameters and the vocabulary, in hexadecimal: what must be the same for
        the same words and pixels to come out."""
        tensors = self._arrays(self._trunk) | dict(self.vocabulary.tensors())
        return fingerprint(self.config, tensors, self.vocabulary.words)

    @cached_property
    def palette(self) -> dict[str, list[str]]:
        """Words that paint, by colour: in layers whose words are chosen by what they look like; see `spae.palette`."""
        return palette(self.config, self.vocabulary.words, self._params, self._codebooks["appearance"])

    def _arrays(self, trunk: nnx.Module | None) -> dict[str, np.ndarray]:
        """All parameters by name, with those of `trunk`."""
        return arrays(
            self._params, dict(zip(FROZEN, (trunk, self.pursuit, self._language_model), strict=True))
        )

    @overload
    def encode(self, image: Image.Image) -> Pyramid: ...
    @overload
    def encode(self, image: Sequence[Picture | Clip]) -> list[Pyramid]: ...
    @overload
    def encode(self, image: UInt8[np.ndarray, "*b h w 3"]) -> Any: ...  # a Pyramid, or a list for a batch
    def encode(self, image):
        """One image, or clip, to its pyramid, or a batch to a list of pyramids.

        Args:
            image: a PIL image or a uint8 array (H, W, 3) of any size; or a list of them, or a uint8 array
                (B, H, W, 3). Of each the central square is taken, see `square`. A tokenizer of clips takes
                uint8 arrays (T, H, W, 3) with T = `frames` instead, a list of them, or an array (B, T, H, W, 3).

        Raises:
            InputError: not an image, not a clip where clips are wanted, or an empty batch.
        """
        rank = 3 if self.frames == 1 else 4
        single = isinstance(image, Image.Image) or (isinstance(image, np.ndarray) and image.ndim <= rank)
        if not single and not isinstance(image, Iterable):
            raise InputError(f"wanted an image or a sequence of them, got {type(image).__name__}")
        images = [self.square(one) for one in ([image] if single else image)]
        if not images:
            raise InputError("wanted at least one image to encode, got an empty batch")
        pyramids: dict[int, Pyramid] = {}
        for side in {one.shape[-2] for one in images}:
            for part in in_parts([i for i, one in enumerate(images) if one.shape[-2] == side]):
                grids = jax.device_get(self._quantized(padded(np.stack([images[i] for i in part]))).ids)
                pyramids |= {
                    i: Pyramid(tuple(grid[row] for grid in grids), self.shape, self.vocabulary)
                    for row, i in enumerate(part)
                }
        return pyramids[0] if single else [pyramids[i] for i in range(len(images))]

    def rivals(
        self, image: Picture | Clip, count: int
    ) -> tuple[Pyramid, tuple[Int[np.ndarray, "*grid count"], ...]]:
        """One image's pyramid, and for every place the next nearest words: those that would have been chosen there
        if the chosen word, or the rivals before, were not in the vocabulary.

        Every place was searched with a vector of its own (`Quantized.queries`), and the rivals are the words next
        nearest to that same vector in the same view: in the meaning layers to the meaning head's answer, in the
        others to what the average at the place lacks, given the words that the layers above chose. So each rival
        stands for a change of one word alone; had it been chosen, layers below might have chosen other words.
        Where meaning layers hold a ranking of words, a place's rivals are the next of the ranking; with pursuit those
        of `spae.pursuit.Pursuit.rivals`.

        Args:
            image: a PIL image or a uint8 array (H, W, 3) of any size, or a clip, as for `encode`.
            count: rivals of each place, 1 .. V - 1 (of a ranking of K words: 1 .. V - K; with pursuit
                1 .. `pursuit.kinds` - 1).

        Returns:
            The pyramid that `encode` gives, and per layer int32 (*grid, count) ids, the nearest first, never the
            chosen one.

        Raises:
            InputError: not an image, or a bad count.
        """
        check_count(count, self.config, len(self.vocabulary), self.pursuit)
        seen_bhwc = self.square(image)[None]
        found = self._quantized(seen_bhwc)
        pyramid = Pyramid(tuple(np.asarray(ids[0]) for ids in found.ids), self.shape, self.vocabulary)
        return pyramid, find_rivals(found, seen_bhwc, count, self._codebooks, self._compiled)

    def region_words(self, image: Picture, region: Region, count: int) -> list[str]:
        """Words of what is there: `count` words that add up to what the trunk sees in a region of an image, the first
        of which says most (`spae.pursuit.Pursuit.parts`). The trunk's map is coarse (7 x 7 cells over the square for
        ConSE), so what lies beside a small region is seen with it.

        Args:
            image: a PIL image or a uint8 array (H, W, 3) of any size.
            region: a box (x, y, width, height) in pixels of the image as given (a PIL image: upright), or a mask, bool
                (H, W). Where it reaches out of the central square that `encode` takes, the whole image is
                looked at, see `spae.region.look`.
            count: 1 .. `pursuit.kinds`.

        Raises:
            InputError: not an image, a bad region (see `spae.region.look`) or count, or a tokenizer whose words of
                meaning are not chosen by pursuit.
        """
        if self.pursuit is None:
            raise InputError(
                f"words of a region need a tokenizer with meaning 'pursuit', this one has {self.config.meaning!r}"
            )
        if not 1 <= count <= self.pursuit.kinds:
            raise InputError(f"wanted 1 to {self.pursuit.kinds} words of a region, got {count}")
        looked = look(image, region)
        weights_hw = looked.cells(self.trunk.cells)
        ids = self._compiled.part_words(self.square(looked.square_hwc)[None], weights_hw[None, None], count)
        return [self.vocabulary.words[i] for i in np.asarray(ids)[0, 0]]

    @overload
    def decode(
        self, pyramid: Pyramid | str, layers: int | None = None, strict: bool = False
    ) -> UInt8[np.ndarray, "*t h w 3"]: ...
    @overload
    def decode(
        self, pyramid: Sequence[Pyramid | str], layers: int | None = None, strict: bool = False
    ) -> UInt8[np.ndarray, "b *t h w 3"]: ...
    def decode(self, pyramid, layers=None, strict=False):
        """A pyramid, or words as text, to an image or clip; a list of them to a batch.

        Args:
            pyramid: Pyramid, or text that `parse` understands (call it to see the repairs); or a list of those, all
                with the same number of layers unless `layers` is given. Of text it is warned if words are missing
                or too many, or many are none of the vocabulary (`spae.text.REPAIRS_TOLERATED`).
            layers: decode from the first so many layers only; all that are there by default.
            strict: refuse text with words missing, unknown or too many.

        Returns:
            uint8 (S, S, 3), or (B, S, S, 3) for a list; S = `image_size`. Clips are (T, S, S, 3), T = `frames`.

        Raises:
            InputError: an empty batch or text, several texts of one word each, too many layers, words of another
                tokenizer, or text that `strict` refuses.
        """
        single = isinstance(pyramid, Pyramid | str)
        if not single and not isinstance(pyramid, Sequence):
            raise InputError(f"wanted a pyramid, a text or a sequence of them, got {type(pyramid).__name__}")
        if not single and layers is None and len(pyramid) > 1 and all(map(_is_one_word, pyramid)):
            raise InputError(
                f"got {len(pyramid)} texts of one word: wanted one text of all, ' '.join(words), for one picture; "
                "for a picture of each word give layers=1"
            )
        pyramids = []
        for one in [pyramid] if single else pyramid:
            pyramids.append(self._read_text(one, layers, strict) if isinstance(one, str) else one)
        if not pyramids:
            raise InputError("wanted at least one pyramid to decode, got an empty batch")
        depth = layers if layers is not None else pyramids[0].layers
        for one in pyramids:
            self.check(one)
            if layers is None and one.layers != depth:
                raise InputError(
                    f"the pyramids have {depth} and {one.layers} layers: say how many with layers="
                )
        pyramids = [one.prefix(depth) for one in pyramids]
        images = []
        for part in in_parts(pyramids):
            ids = [padded(np.stack([one.ids[l] for one in part])) for l in range(depth)]
            decoded_bhwc = jax.device_get(self._compiled.decode(self._params, ids, self._codebooks))
            images.append(to_uint8(decoded_bhwc[: len(part)]))
        images_bhwc = np.concatenate(images)
        return images_bhwc[0] if single else images_bhwc

    def check(self, pyramid: Pyramid) -> None:
        """That a pyramid is this tokenizer's.

        Raises:
            InputError: it is another's.
        """
        if not isinstance(pyramid, Pyramid):
            raise InputError(f"wanted a pyramid, or words as text, got {type(pyramid).__name__}")
        if pyramid.shape != self.shape:
            raise InputError(
                f"wanted a pyramid of {self.shape}, got one of {pyramid.shape}: use the tokenizer it is from"
            )
        other = getattr(pyramid.vocabulary, "words", self.vocabulary.words)
        if other is not self.vocabulary.words and other != self.vocabulary.words:
            raise InputError(
                "the pyramid is of another vocabulary: use the tokenizer it is from, or pass its text"
            )
        if max(int(ids.max()) for ids in pyramid.ids) >= len(self.vocabulary):
            raise InputError(
                f"wanted ids below {len(self.vocabulary)}, got a larger one: use the tokenizer it is from"
            )

    def _read_text(self, text: str, layers: int | None, strict: bool) -> Pyramid:
        parsed = self.parse(text, layers)
        if strict:
            return parsed.strict()
        if parsed.doubtful or parsed.count("missing") or parsed.count("surplus"):
            warnings.warn(f"{parsed.account}; strict=True refuses such text", stacklevel=3)
        return parsed.pyramid

    def parse(self, text: str, layers: int | None = None) -> Parsed:
        """Text to a pyramid and the list of repairs it needed; see `spae.text.parse`."""
        return parse(text, self.vocabulary, self.shape, layers)

    def prompt(
        self,
        layers: int | None = None,
        examples: Mapping[str, Pyramid | Picture | Clip] | None = None,
        json: bool = False,
    ) -> str:
        """A text to paste into any chat, whose answer `parse` understands; see `spae.prompt.write_prompt`."""
        return write_prompt(self, layers, examples, json)

    def save(
        self, folder: str | os.PathLike, info: Mapping[str, Any] | None = None, dtype: str = "float32"
    ) -> None:
        """Write a bundle.

        Args:
            folder: where to; a bundle that is there is replaced once the new one is complete.
            info: provenance and metrics to add to `self.info`.
            dtype: "float32", or "float16" for half the size (weights are rounded; measure what you ship).

        Raises:
            InputError: another dtype; a weight that float16 cannot hold.
            OSError: the disk is full or the folder cannot be written; what was there stays whole.
        """
        if dtype not in ("float32", "float16"):
            raise InputError(f"save: wanted the dtype float32 or float16, got {dtype!r}")
        params = self._arrays(self.trunk if self.config.trunk != "none" else None)
        header = {
            **self.info,
            **(info or {}),
            "config": dataclasses.asdict(self.config),
            "trunk": trunks.sizes(self._trunk),
            "pursuit": self.pursuit.sizes._asdict() if self.pursuit else {},
            "language_model": dataclasses.asdict(self._language_model.sizes) if self._language_model else {},
            "vocabulary": self.vocabulary.header(),
        }
        bundle.write(
            folder,
            header,
            {
                "params.safetensors": {name: cast(value, dtype) for name, value in params.items()},
                "vocabulary.safetensors": self.vocabulary.tensors(),
                "words.json": list(self.vocabulary.words),
            },
        )

    @classmethod
    def load(cls, name: str | os.PathLike) -> "Tokenizer":
        """A tokenizer from a shipped bundle's name, a folder, or a remote path.

        Raises:
            BundleError: no bundle is there, or it is damaged or of another version.
        """
        parts = read_parts(name)
        tokenizer = cls(**vars(parts))
        tokenizer.source = f"loaded from {os.fspath(name)}"
        return tokenizer

    @cached_property
    def trunk(self) -> Any:
        """The frozen trunk, a `spae.guidance.protocol.ImageTower`; only there if `config.trunk` names one."""
        return self._trunk if self._trunk is not None else image_tower()

    def square(self, image: Any) -> UInt8[np.ndarray, "*t s s 3"]:
        """What is looked at of one image: its central square, of `image_size` pixels a side if it has no more, else of
        `sight`. The trunk sees it as it is, the encoder at `image_size`. Of a clip, squares of `image_size`.

        Raises:
            InputError: not an image, or not a clip where one is wanted.
        """
        if self.frames > 1:
            return to_clip(image, self.image_size, self.frames)
        if isinstance(image, np.ndarray) and image.ndim == 4:
            raise InputError(f"this tokenizer is one of images: wanted (H, W, 3), got a clip {image.shape}")
        return to_square(image, self.image_size, self.sight)

    def _quantized(self, seen_bhwc: UInt8[np.ndarray, "b *t s s 3"]) -> Quantized:
        """Of squares of `image_size` or of `sight`."""
        looked = self._compiled.look(seen_bhwc) if self.config.trunk != "none" else None
        images_bhwc = seen_bhwc
        if seen_bhwc.shape[-2] != self.image_size:
            images_bhwc = np.stack([to_array(one, self.image_size) for one in seen_bhwc])
        return self._compiled.encode(self._params, looked, self._codebooks, images_bhwc)


def _is_one_word(one: Pyramid | str) -> bool:
    return isinstance(one, str) and len(one.split()) == 1


def load(name: str | os.PathLike = "default") -> Tokenizer:
    """A tokenizer from a shipped bundle's name, a folder, or a remote path such as gs://bucket/folder.

    Raises:
        BundleError: no bundle is there, or it is damaged or of another version.
    """
    keep_compiled()
    return Tokenizer.load(name)
