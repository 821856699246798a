"""The words an image may become: whole-word tokens of a frozen language model and their embeddings.

The embeddings are never trained. They are searched and decoded through fixed *views* kept with them.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int

from spae.errors import BundleError, InputError
from spae.files import bucket_errors, open_path, write_files
from spae.weights.packing import packed, unpacked

_FORMAT = 1
_CODE_SEED = 0
_VIEW_NAMES = ("meaning", "appearance")
_FILES = ("vocabulary.json", "vocabulary.safetensors", "words.json")


@dataclass(frozen=True, eq=False)
class View:
    """A fixed map of the embedding table, x -> (x - shift) matrix; never trained.

    `shift`: float32 (c,), or a single number; `matrix`: float32 (c, d), or a single number that scales.
    The kind "normalised" also brings every row to unit length.
    """

    KINDS: ClassVar = ("raw", "centred", "normalised", "whitened")

    kind: str
    shift: np.ndarray
    matrix: np.ndarray

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise InputError(f"view: wanted one of {', '.join(self.KINDS)}; got {self.kind!r}")
        for name in ("shift", "matrix"):
            array = np.array(getattr(self, name), np.float32)
            if not np.isfinite(array).all():
                raise InputError(f"view: its {name} holds NaN or infinity")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.shift.ndim > 1 or self.matrix.ndim not in (0, 2):
            raise InputError(
                f"view: wanted a shift (c,) and a matrix (c, d), or single numbers; "
                f"got {self.shift.shape} and {self.matrix.shape}"
            )

    @classmethod
    def raw(cls) -> "View":
        """The table as it is: the paper's form."""
        return cls("raw", np.array(0.0), np.array(1.0))

    @classmethod
    def centred(cls, embeddings: Float[np.ndarray, "v c"]) -> "View":
        """Mean subtracted, then one global scale that makes the median row norm 1. Search and streaming
        average notice neither (they are a re-parametrisation); optimisers do."""
        mean, centred = _centre(embeddings)
        return cls("centred", mean, np.array(1 / _median_norm(centred)))

    @classmethod
    def normalised(cls) -> "View":
        """Every row divided by its norm. This changes which word is nearest."""
        return cls("normalised", np.array(0.0), np.array(1.0))

    @classmethod
    def whitened(cls, embeddings: Float[np.ndarray, "v c"], components: int) -> "View":
        """The leading principal components, each to unit variance, then median row norm 1.

        The sign of each component is fixed: its entry of largest magnitude is positive.
        """
        width = embeddings.shape[1]
        if not 1 <= components <= min(embeddings.shape[0] - 1, width):
            raise InputError(
                f"view: wanted 1 to {min(embeddings.shape[0] - 1, width)} components; got {components}"
            )
        mean, centred = _centre(embeddings)
        variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
        variances, axes = variances[::-1][:components], axes[:, ::-1][:, :components]
        if variances[-1] <= 1e-12 * variances[0]:
            raise InputError(f"view: the embeddings span fewer than {components} dimensions; ask for fewer")
        axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(components)])
        matrix = axes / np.sqrt(variances)
        return cls("whitened", mean, matrix / _median_norm(centred @ matrix))

    def apply(self, embeddings: Float[np.ndarray, "v c"]) -> Float[np.ndarray, "v d"]:
        """float32 (V, d). Computed in float64, so that machines agree to the last bit of float32 unless
        a value lies exactly on the edge between two of them."""
        viewed = embeddings.astype(np.float64)
        # In place: a table in float64 is large, and every further copy of it takes as long as the arithmetic.
        viewed -= self.shift
        if self.matrix.ndim == 0:
            viewed *= self.matrix
        else:
            viewed = viewed @ self.matrix.astype(np.float64)
        if self.kind == "normalised":
            norms = np.linalg.norm(viewed, axis=1, keepdims=True)
            if not norms.all():
                raise InputError("view: a row of the table is zero and has no direction; use another view")
            viewed /= norms
        return viewed.astype(np.float32)


def _centre(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exact = embeddings.astype(np.float64)
    mean = exact.mean(0).astype(np.float32)
    return mean, exact - mean


def _median_norm(rows: np.ndarray) -> float:
    norm = float(np.median(np.linalg.norm(rows, axis=1)))
    if norm == 0:
        raise InputError("view: half of the embeddings are equal, so the table has no scale")
    return norm


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words, their token ids in the language model, and their frozen embeddings.

    `words`: V different words without spaces; `token_ids`: int32 (V,), the model's own numbers;
    `embeddings`: float32 (V, c); `views`: {"meaning": View, "appearance": View}; `provenance`: plain JSON.

    Raises:
        InputError: these do not fit each other.
    """

    words: tuple[str, ...]
    token_ids: Int[np.ndarray, " v"]
    embeddings: Float[np.ndarray, "v c"]
    views: Mapping[str, View]
    provenance: Mapping[str, Any]
    _codebooks: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        words = tuple(self.words)
        if not words or not all(isinstance(word, str) and word.split() == [word] for word in words):
            raise InputError("vocabulary: wanted at least one word, each a string without spaces")
        if len(set(words)) != len(words):
            raise InputError(f"vocabulary: {len(words) - len(set(words))} words occur twice")
        token_ids, embeddings = np.asarray(self.token_ids), np.asarray(self.embeddings)
        if token_ids.dtype.kind not in "iu" or token_ids.shape != (len(words),) or token_ids.min() < 0:
            raise InputError(
                f"vocabulary: wanted {len(words)} token ids (integers from 0); "
                f"got {token_ids.dtype} {token_ids.shape}"
            )
        if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != len(words):
            raise InputError(
                f"vocabulary: wanted float32 embeddings of shape ({len(words)}, width); "
                f"got {embeddings.dtype} {embeddings.shape}"
            )
        if not np.isfinite(embeddings).all():
            raise InputError("vocabulary: the embeddings hold NaN or infinity")
        if set(self.views) != set(_VIEW_NAMES):
            raise InputError(f"vocabulary: wanted the views {_VIEW_NAMES}; got {tuple(self.views)}")
        width = embeddings.shape[1]
        for name, view in self.views.items():
            if view.shift.shape not in ((), (width,)) or view.matrix.shape[:1] not in ((), (width,)):
                raise InputError(f"vocabulary: the {name} view is not for embeddings of width {width}")
        arrays = {"token_ids": token_ids.astype(np.int32), "embeddings": embeddings.copy()}
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "words", words)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def width(self) -> int:
        """Width c of the language model's embeddings."""
        return self.embeddings.shape[1]

    @property
    def language_model(self) -> str:
        """The name of the model whose words these are, "" where that is not known."""
        source = self.provenance.get("model", {})
        # What a GGUF file itself calls its model may be no more than the name of a training run.
        return (Path(source["file"]).stem if source.get("format") == "gguf" else source.get("name")) or ""

    @cached_property
    def index(self) -> dict[str, int]:
        """word -> id."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def folded_index(self) -> dict[str, int]:
        """Case-folded word -> id; the lowest id where two words differ in case only."""
        folded: dict[str, int] = {}
        for i, word in enumerate(self.words):
            folded.setdefault(word.casefold(), i)
        return folded

    def codebook(self, name: str) -> Float[np.ndarray, "v d"]:
        """The embeddings through the view `name` ("meaning" or "appearance"): float32, kept, read-only."""
        if name not in self.views:
            raise InputError(f"codebook: wanted one of {', '.join(_VIEW_NAMES)}; got {name!r}")
        if name not in self._codebooks:
            codebook = self.views[name].apply(self.embeddings)
            codebook.setflags(write=False)
            self._codebooks[name] = codebook
        return self._codebooks[name]

    def tensors(self) -> dict[str, np.ndarray]:
        """Everything but words and header, ready for safetensors; the table in the smallest exact form."""
        tensors = {"token_ids": np.array(self.token_ids), **packed(self.embeddings)}
        for name, view in self.views.items():
            tensors[f"views.{name}.shift"] = np.array(view.shift)
            tensors[f"views.{name}.matrix"] = np.array(view.matrix)
        return tensors

    def header(self) -> dict[str, Any]:
        """The JSON that goes with `tensors()` and `words`."""
        return {
            "format": _FORMAT,
            "size": len(self),
            "width": self.width,
            "views": {name: view.kind for name, view in self.views.items()},
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_parts(
        cls, tensors: Mapping[str, np.ndarray], words: list[str], header: Mapping[str, Any]
    ) -> "Vocabulary":
        """The inverse of `tensors()`, `words` and `header()`.

        Raises:
            BundleError: they do not fit each other.
        """
        if header.get("format") != _FORMAT:
            raise BundleError(
                f"vocabulary: wanted format {_FORMAT}; got {header.get('format')!r}; "
                "it was written by another version: build it again, or install the version that wrote it"
            )
        try:
            views = {
                name: View(kind, tensors[f"views.{name}.shift"], tensors[f"views.{name}.matrix"])
                for name, kind in header["views"].items()
            }
            vocabulary = cls(
                tuple(words), tensors["token_ids"], unpacked(tensors), views, header["provenance"]
            )
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise BundleError(f"vocabulary: its files do not fit together: {error}") from error
        if (len(vocabulary), vocabulary.width) != (header.get("size"), header.get("width")):
            raise BundleError(
                f"vocabulary: wanted {header.get('size')} words of width {header.get('width')}; "
                f"got {len(vocabulary)} of width {vocabulary.width}"
            )
        return vocabulary

    def save(self, folder: str | Path) -> None:
        """Writes vocabulary.safetensors, words.json and vocabulary.json (with the sha256 of the others), whole or not
        at all; vocabulary.json last, so that a write that was cut off between them is noticed when loading.

        Raises:
            InputError: the folder is a bundle, whose own words these would replace; it cannot be written, the disk is
                full.
        """
        from safetensors.numpy import save

        folder = Path(folder)
        refuse_bundle(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "vocabulary.safetensors": save(self.tensors()),
            "words.json": json.dumps(self.words, ensure_ascii=False, indent=0).encode(),
        }
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        header = {**self.header(), "sha256": digests}
        files["vocabulary.json"] = json.dumps(header, ensure_ascii=False, indent=1).encode()
        write_files((folder / name, data) for name, data in files.items())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Vocabulary":
        """Reads what `save` wrote, or a copy of it in a bucket.

        Raises:
            BundleError: a file is missing, changed or unreadable.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        place = open_path(folder)
        try:
            with bucket_errors(place):
                data = {name: (place / name).read_bytes() for name in _FILES}
            header = json.loads(data.pop("vocabulary.json"))
        except OSError as error:
            reason = error.strerror or error
            raise BundleError(f"vocabulary: cannot read {error.filename or place}: {reason}") from error
        except ValueError as error:
            raise BundleError(f"vocabulary: {place / 'vocabulary.json'} is not JSON: {error}") from error
        if not isinstance(header, dict) or not isinstance(header.get("sha256"), dict):
            raise BundleError(f"vocabulary: {place / 'vocabulary.json'} lists no checksums; build it again")
        for name, content in data.items():
            if hashlib.sha256(content).hexdigest() != header["sha256"].get(name):
                raise BundleError(
                    f"vocabulary: {place / name} is damaged (its sha256 differs); copy or build it again"
                )
        try:
            return cls.from_parts(
                load(data["vocabulary.safetensors"]), json.loads(data["words.json"]), header
            )
        except (SafetensorError, ValueError) as error:
            raise BundleError(f"vocabulary: the files in {place} cannot be read: {error}") from error


def code_vocabulary(count: int, width: int) -> Vocabulary:
    """The "words" of a learned codebook, code0, code1, ..: names that stand for nothing in any language, and the values
    that their codes begin with.

    Args:
        count: V, how many codes.
        width: c; the values are float32 (V, c), normal, of expected squared length 1, the same on every machine.

    Raises:
        InputError: a count or width below 1.
    """
    if count < 1 or width < 1:
        raise InputError(f"codes: wanted at least one code of at least one dimension; got {count} of {width}")
    values_vc = np.random.default_rng(_CODE_SEED).normal(size=(count, width)) / np.sqrt(width)
    return Vocabulary(
        tuple(f"code{i}" for i in range(count)),
        np.arange(count, dtype=np.int32),
        values_vc.astype(np.float32),
        {"meaning": View.raw(), "appearance": View.raw()},
        {"codes": {"generator": "numpy default_rng", "seed": _CODE_SEED}},
    )


def refuse_bundle(folder: Path) -> None:
    """Raise InputError if the folder is a bundle, whose own words a vocabulary's files would replace."""
    if (folder / "bundle.json").exists():
        raise InputError(f"{folder} is a bundle, which has a vocabulary of its own: give another folder")
