"""The tokenizer: images, or clips, to pyramids of words, and pyramids or plain text back to them."""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int, UInt8
from PIL import Image

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.autoencoder import Autoencoder
from spae.errors import BundleError, InputError
from spae.files import cache_folder
from spae.frozen_lm.masked_lm import BertEncoder, BertSizes
from spae.guidance import trunks
from spae.guidance.conse import image_tower
from spae.guidance.sight import trunk_side
from spae.images import to_array, to_float, to_square, to_uint8
from spae.nearest import nearest_few
from spae.prompt import write_prompt
from spae.pursuit import Pursuit
from spae.pursuit import Sizes as PursuitSizes
from spae.pyramid import Pyramid, PyramidShape, grids_text
from spae.quantize import QUANTIZERS, Quantized, normalised, prefix_averages
from spae.region import Region, look
from spae.sources.clips import to_clip
from spae.text import Parsed, parse
from spae.vocabulary import Vocabulary
from spae.weights.parameters import cast, fill, flatten

Picture = Image.Image | UInt8[np.ndarray, "h w 3"]
Clip = UInt8[np.ndarray, "t h w 3"]

# Batches are padded up to one of these sizes, so that there is one compiled function per size and no more.
BUCKETS = (1, 2, 4, 8, 16, 32)


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
        trunks.check(config.trunk, trunk)
        if (pursuit is not None) != (config.meaning == "pursuit"):
            raise InputError(
                f"wanted a pursuit as config.meaning {config.meaning!r} says, got {type(pursuit).__name__}"
            )
        _check_language_model(config, vocabulary, language_model)
        self.config = config
        self.vocabulary = vocabulary
        self.info = dict(info or {})
        self.source = "made in this program"
        self._trunk = trunk
        self._language_model = language_model
        self.pursuit = pursuit
        self._views = {name: jax.device_put(vocabulary.codebook(name)) for name in ("appearance", "meaning")}
        self._graph = nnx.split(model)[0]
        self.replace(model)

    def replace(self, model: Autoencoder) -> None:
        """Go on with the parameters of another model of the same architecture; nothing is compiled again."""
        self._params = nnx.split(model)[1]
        self._codebooks = {**self._views, "appearance": model.codebook(self._views["appearance"])}
        self.__dict__.pop("fingerprint", None)

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
        # Only what differs from the defaults: a field that a later version adds does not change what a bundle is.
        chosen = sorted(
            (field.name, value)
            for field in dataclasses.fields(self.config)
            if (value := getattr(self.config, field.name)) != field.default
        )
        digest = hashlib.sha256(repr(chosen).encode())
        arrays = flatten(self._params, "autoencoder.") | dict(self.vocabulary.tensors())
        if self._trunk is not None:
            arrays |= flatten(nnx.state(self._trunk), "trunk.")
        if self.pursuit is not None:
            arrays |= flatten(nnx.state(self.pursuit), "pursuit.")
        if self._language_model is not None:
            arrays |= flatten(nnx.state(self._language_model), "language_model.")
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update("\n".join(self.vocabulary.words).encode())
        return digest.hexdigest()

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
        images = [self.square(one) for one in ([image] if single else image)]
        if not images:
            raise InputError("wanted at least one image to encode, got an empty batch")
        pyramids: dict[int, Pyramid] = {}
        for side in {one.shape[-2] for one in images}:
            for part in _parts([i for i, one in enumerate(images) if one.shape[-2] == side]):
                grids = jax.device_get(self._quantized(_pad(np.stack([images[i] for i in part]))).ids)
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
        meaning_layers = self.config.meaning_layers
        most, ranked = len(self.vocabulary) - 1, self.config.meaning == "ranked"
        if ranked:
            # The last word of a ranking has fewer words behind it.
            most = len(self.vocabulary) - self.shape.tokens(meaning_layers)
        elif self.pursuit is not None:
            most = self.pursuit.kinds - 1
        if not 1 <= count <= most:
            raise InputError(f"wanted 1 to {most} rivals of each word, got {count}")
        seen_bhwc = self.square(image)[None]
        found = self._quantized(seen_bhwc)
        rivals = []
        for name, layers in (
            ("meaning", range(meaning_layers)),
            ("appearance", range(meaning_layers, len(self.shape))),
        ):
            if not layers:
                continue
            query_nc = jnp.concatenate([found.queries[l][0] for l in layers])
            if name == "meaning" and self.pursuit is not None:
                others = np.asarray(self._next_words(self._frozen_parts[1], seen_bhwc, count))[0]
            elif name == "meaning" and ranked:
                few = self._nearest_few(query_nc[:1], self._codebooks[name], len(query_nc) + count, False)
                others = np.asarray(few)[0, np.add.outer(np.arange(len(query_nc)), 1 + np.arange(count))]
            else:
                unit = self.config.unit and name == "appearance"
                few_nm = np.asarray(self._nearest_few(query_nc, self._codebooks[name], count + 1, unit))
                chosen_n = np.concatenate([np.asarray(found.ids[l]).ravel() for l in layers])
                others_nm = few_nm != chosen_n[:, None]
                # A chosen word that is equally near as the last of the few may have been pushed out of them.
                others_nm[others_nm.all(1), -1] = False
                others = few_nm[others_nm].reshape(-1, count)
            ends = np.cumsum([found.ids[l][0].size for l in layers])[:-1]
            rivals += np.split(others, ends)
        pyramid = Pyramid(tuple(np.asarray(ids[0]) for ids in found.ids), self.shape, self.vocabulary)
        return pyramid, tuple(
            one.reshape(*grid, count) for one, grid in zip(rivals, self.shape.layers, strict=True)
        )

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
        ids = self._part_words(
            self._frozen_parts[1], self.square(looked.square_hwc)[None], weights_hw[None, None], count
        )
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
                with the same number of layers unless `layers` is given. Of text it is warned if words are missing,
                or many are none of the vocabulary (`spae.text.REPAIRS_TOLERATED`).
            layers: decode from the first so many layers only; all that are there by default.
            strict: refuse text with words missing, unknown or too many.

        Returns:
            uint8 (S, S, 3), or (B, S, S, 3) for a list; S = `image_size`. Clips are (T, S, S, 3), T = `frames`.

        Raises:
            InputError: an empty batch or text, too many layers, words of another tokenizer, or text that `strict`
                refuses.
        """
        single = isinstance(pyramid, Pyramid | str)
        pyramids = []
        for one in [pyramid] if single else pyramid:
            pyramids.append(self._read_text(one, layers, strict) if isinstance(one, str) else one)
        if not pyramids:
            raise InputError("wanted at least one pyramid to decode, got an empty batch")
        depth = layers if layers is not None else pyramids[0].layers
        for one in pyramids:
            if one.shape != self.shape:
                raise InputError(
                    f"wanted a pyramid of {self.shape}, got one of {one.shape}: use the tokenizer it is from"
                )
            other = getattr(one.vocabulary, "words", self.vocabulary.words)
            if other is not self.vocabulary.words and other != self.vocabulary.words:
                raise InputError(
                    "the pyramid is of another vocabulary: use the tokenizer it is from, or pass its text"
                )
            if max(int(ids.max()) for ids in one.ids) >= len(self.vocabulary):
                raise InputError(
                    f"wanted ids below {len(self.vocabulary)}, got a larger one: use the tokenizer it is from"
                )
            if layers is None and one.layers != depth:
                raise InputError(
                    f"the pyramids have {depth} and {one.layers} layers: say how many with layers="
                )
        pyramids = [one.prefix(depth) for one in pyramids]
        images = []
        for part in _parts(pyramids):
            ids = tuple(_pad(np.stack([one.ids[l] for one in part])) for l in range(depth))
            zhat_bhwc = self._average(ids, self._codebooks["appearance"])
            if self._language_model is not None:
                zhat_bhwc = self._read(self._language_model_parts[1], zhat_bhwc)
            attended = ids[: self.config.meaning_layers] if self.config.cross_attention else ()
            decoded_bhwc = jax.device_get(
                self._decode(self._params, zhat_bhwc, attended, self._codebooks["meaning"])
            )
            images.append(to_uint8(decoded_bhwc[: len(part)]))
        images_bhwc = np.concatenate(images)
        return images_bhwc[0] if single else images_bhwc

    def _read_text(self, text: str, layers: int | None, strict: bool) -> Pyramid:
        parsed = self.parse(text, layers)
        if strict:
            return parsed.strict()
        if parsed.doubtful or parsed.count("missing"):
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
            OSError: the disk is full or the folder cannot be written; what was there stays whole.
        """
        params = flatten(self._params, "autoencoder.")
        if self.config.trunk != "none":
            params |= flatten(nnx.state(self.trunk), "trunk.")
        if self.pursuit is not None:
            params |= flatten(nnx.state(self.pursuit), "pursuit.")
        if self._language_model is not None:
            params |= flatten(nnx.state(self._language_model), "language_model.")
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
        info, files = bundle.read(name)
        try:
            config = AutoencoderConfig.from_json(info["config"])
            vocabulary = Vocabulary.from_parts(
                files["vocabulary.safetensors"], files["words.json"], info["vocabulary"]
            )
            params = files["params.safetensors"]
            build_trunk = trunks.builder(config.trunk, info.get("trunk", {}))
            sizes = BertSizes(**info["language_model"]) if config.language_model != "none" else None
            pursued = PursuitSizes(**info["pursuit"]) if config.meaning == "pursuit" else None
        except (KeyError, TypeError) as error:
            raise BundleError(f"the bundle {name} lacks or has one field too many: {error}") from error
        trunk = fill(build_trunk, params, "trunk.") if config.trunk != "none" else None
        language_model = None
        if sizes is not None:
            language_model = fill(lambda: BertEncoder(sizes, rngs=nnx.Rngs(0)), params, "language_model.")
        pursuit = None
        if pursued is not None:
            pursuit = fill(lambda: Pursuit.of(config, pursued), params, "pursuit.")
        build = partial(
            Autoencoder,
            config,
            vocabulary.codebook("appearance").shape[1],
            vocabulary.codebook("meaning").shape[1],
            trunk.width if trunk is not None else 0,
            len(vocabulary),
        )
        model = fill(lambda: build(rngs=nnx.Rngs(0)), params, "autoencoder.")
        extra = [
            key
            for key in params
            if not key.startswith(("autoencoder.", "trunk.", "pursuit.", "language_model."))
        ]
        if extra:
            raise BundleError(f"the bundle {name} has parameters that no part of it knows: {extra[:3]}")
        known = ("format", "version", "files", "config", "vocabulary", "trunk", "pursuit", "language_model")
        info = {k: v for k, v in info.items() if k not in known}
        tokenizer = cls(config, vocabulary, model, trunk, info, language_model, pursuit)
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
        frozen = self._look(self._frozen_parts[1], seen_bhwc) if self.config.trunk != "none" else None
        images_bhwc = seen_bhwc
        if seen_bhwc.shape[-2] != self.image_size:
            images_bhwc = np.stack([to_array(one, self.image_size) for one in seen_bhwc])
        return self._encode(self._params, frozen, self._codebooks, images_bhwc)

    @cached_property
    def _frozen_parts(self):
        return nnx.split((self.trunk, self.pursuit))

    @cached_property
    def _look(self) -> Callable[..., jax.Array]:
        """What the trunk makes of squares: features (B, f), or with pursuit the words of the meaning layers (B, k)."""
        graph = self._frozen_parts[0]

        def look(state, seen_bhwc):
            trunk, pursuit = nnx.merge(graph, state)
            # Of a clip the mean over its frames, as SPAE's video variant takes CLIP's.
            frames = to_float(seen_bhwc).reshape(-1, *seen_bhwc.shape[-3:])
            if pursuit is not None:
                return pursuit(trunk, frames)
            features_nf = trunk(frames)
            return features_nf.reshape(len(seen_bhwc), -1, features_nf.shape[-1]).mean(axis=1)

        return jax.jit(look)

    @cached_property
    def _encode(self) -> Callable[..., Quantized]:
        config, shape, quantize = self.config, self.shape, QUANTIZERS[self.config.quantizer]

        def encode(params, frozen, codebooks, images_bhwc):
            model = nnx.merge(self._graph, params)
            features_bf, chosen_bk = (None, frozen) if config.meaning == "pursuit" else (frozen, None)
            z_bhwc, meaning = model.encode(
                to_float(images_bhwc), features_bf, codebooks["meaning"], chosen_bk
            )
            found = quantize(
                z_bhwc, codebooks["appearance"], shape, meaning, config.fill, config.unit, config.apart
            )
            # Without the averages, of every prefix the whole grid: nobody reads them here, and XLA leaves them out.
            return found._replace(averages=())

        return jax.jit(encode)

    @cached_property
    def _nearest_few(self) -> Callable[..., jax.Array]:
        def search(query_nc, codebook_vc, count, unit):
            return nearest_few(query_nc, normalised(codebook_vc) if unit else codebook_vc, count)

        return jax.jit(search, static_argnums=(2, 3))

    @cached_property
    def _next_words(self) -> Callable[..., jax.Array]:
        graph = self._frozen_parts[0]

        def next_words(state, seen_bhwc, count):
            trunk, pursuit = nnx.merge(graph, state)
            return pursuit.rivals(trunk, to_float(seen_bhwc), count)

        return jax.jit(next_words, static_argnums=2)

    @cached_property
    def _part_words(self) -> Callable[..., jax.Array]:
        graph = self._frozen_parts[0]

        def part_words(state, seen_bhwc, weights_brhw, count):
            trunk, pursuit = nnx.merge(graph, state)
            return pursuit.parts(trunk, to_float(seen_bhwc), weights_brhw, count)

        return jax.jit(part_words, static_argnums=3)

    @cached_property
    def _average(self) -> Callable[..., jax.Array]:
        config, shape = self.config, self.shape
        return jax.jit(
            lambda ids, codebook_vc: prefix_averages(
                ids, codebook_vc, shape, config.quantizer, config.fill, config.apart
            )[-1]
        )

    @cached_property
    def _language_model_parts(self):
        return nnx.split(self._language_model)

    @cached_property
    def _read(self) -> Callable[..., jax.Array]:
        graph = self._language_model_parts[0]
        return jax.jit(lambda state, words_bhwc: nnx.merge(graph, state).grid(words_bhwc))

    @cached_property
    def _decode(self) -> Callable[..., jax.Array]:
        return jax.jit(lambda params, *words: nnx.merge(self._graph, params).decode(*words))


def load(name: str | os.PathLike = "default") -> Tokenizer:
    """A tokenizer from a shipped bundle's name, a folder, or a remote path such as gs://bucket/folder.

    Raises:
        BundleError: no bundle is there, or it is damaged or of another version.
    """
    keep_compiled()
    return Tokenizer.load(name)


def keep_compiled() -> None:
    """Keep compiled functions on disk, in `spae.files.cache_folder`, unless JAX has been given a cache of its own."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _check_language_model(
    config: AutoencoderConfig, vocabulary: Vocabulary, language_model: BertEncoder | None
) -> None:
    if (language_model is not None) != (config.language_model == "masked"):
        raise InputError(
            f"wanted a language model as config.language_model {config.language_model!r} says, "
            f"got {type(language_model).__name__}"
        )
    if language_model is None:
        return
    sizes, width, words = (
        language_model.sizes,
        vocabulary.codebook("appearance").shape[1],
        config.shape.tokens(1),
    )
    if sizes.width != width or sizes.longest < words:
        raise InputError(
            f"wanted a language model that reads {words} words of width {width}, got one for {sizes.longest} of width "
            f"{sizes.width}: take its own vocabulary with --view raw, and a grid that it can read"
        )


def _parts(items: Sequence) -> Iterator[Sequence]:
    for start in range(0, len(items), BUCKETS[-1]):
        yield items[start : start + BUCKETS[-1]]


def _pad(batch: np.ndarray) -> np.ndarray:
    """Repeat the last row until the batch has the size of a bucket."""
    size = next(bucket for bucket in BUCKETS if bucket >= len(batch))
    return np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
