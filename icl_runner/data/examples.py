"""Examples: images with what is known of them, whatever files they came from."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from spae.errors import InputError


@dataclass(frozen=True)
class Example:
    """What is known of an image.

    Args:
        key: unique within the set.
        image_key: key of the image, which examples with different questions may share; `key` by default.
        label: the class as the data names it.
        captions: descriptions by people, all equally right.
        question, answers: a question about the image, and what people answered (with repetitions).
    """

    key: str
    label: str | None = None
    captions: tuple[str, ...] = ()
    question: str | None = None
    answers: tuple[str, ...] = ()
    image_key: str = ""

    def __post_init__(self) -> None:
        if not self.image_key:
            object.__setattr__(self, "image_key", self.key)


class ExampleSet:
    """Examples with their images.

    Args:
        name: what tables call the set.
        examples: in the order of the data.
        class_names: label -> English name, of every label that occurs.
        read: image key -> uint8 (h, w, 3).
        identity: computes the text that names the content (files' sha256, split); called once, when asked for.
        split: which part of the data this is; None for all of it.
        folder: where the images are files, named by their keys; None where they are not.

    Raises:
        InputError: there are no examples, two have the same key, or a key that is no text (a file's name that is not
            UTF-8).
    """

    def __init__(
        self,
        name: str,
        examples: Sequence[Example],
        class_names: Mapping[str, str],
        read: Callable[[str], np.ndarray],
        identity: Callable[[], str],
        split: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name, self.split, self.folder = name, split, folder
        self.examples = list(examples)
        self.class_names = dict(class_names)
        self._read, self._identity = read, identity
        self._by_key = {example.key: example for example in self.examples}
        self._image_keys = {example.image_key for example in self.examples}
        for key in (*self._by_key, *self._image_keys):
            try:
                key.encode()
            except UnicodeEncodeError as error:
                raise InputError(f"{name}: the name {key!r} is not UTF-8: rename the file") from error
        if not self.examples:
            raise InputError(f"wanted at least one example, {name} has none")
        if len(self._by_key) < len(self.examples):
            raise InputError(
                f"wanted different keys, {name} has {len(self.examples)} examples under {len(self._by_key)}"
            )

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: str) -> Example:
        """The example of a key (not of an image key)."""
        if key not in self._by_key:
            raise InputError(f"{self.name} has no example {key!r}: are these episodes of another set?")
        return self._by_key[key]

    def image(self, example: Example | str) -> UInt8[np.ndarray, "h w 3"]:
        """The image of an example, or of an image key, at its own size.

        Raises:
            InputError: no such key, or a file that cannot be read as an image.
        """
        key = example.image_key if isinstance(example, Example) else example
        if key not in self._image_keys:
            raise InputError(f"{self.name} has no image {key!r}: are these episodes of another set?")
        return self._read(key)

    @property
    def labels(self) -> dict[str, str]:
        """Key -> label of the labelled examples: what `icl_runner.episodes.draw` takes."""
        return {example.key: example.label for example in self.examples if example.label is not None}

    @cached_property
    def known_sha256(self) -> str:
        """sha256 over all that is known of the examples beside their images: keys, labels, captions, questions and
        answers, and what the classes are called."""
        known = [
            [dataclasses.astuple(example) for example in self.examples],
            sorted(self.class_names.items()),
        ]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the images' content and the keys, in hexadecimal; reads every file once."""
        keys = "\0".join(example.key for example in self.examples)
        return hashlib.sha256(f"{self._identity()}\0{keys}".encode()).hexdigest()
