"""What a connector is trained on: images, each with the text that is to be said of it, as arrays of one shape."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np

from spae import class_names
from spae.errors import InputError
from spae.frozen_lm import FrozenLM
from spae.images import to_array
from spae.sources import Source, open_source
from spae.splice import NO_LABEL, encode, splice
from tokenizer_train.connector.config import PairsConfig
from tokenizer_train.damage import Damage
from tokenizer_train.held_out import Part, hold_out
from tokenizer_train.stream import Record, Records

VALIDATION_IMAGES = 64  # behind the figures during training
END = "\n"  # of what is said: the runner's answers are lines


class Pairs(Records):
    """Images of a source and texts, one for each.

    A record has `images`, uint8 (S, S, 3); of the places of its text `ids`, int32 (N,), and `soft`, int32 (N,), as
    `spae.splice.Spliced` has them, 0 and -1 behind its end; and `at` and `said`, int32 (L,), the places whose next
    token is to be said and that token, 0 and NO_LABEL behind the last of them. L = `data.length`, N = L + soft tokens.

    Args:
        source: of the images.
        texts: of each image.
        lm: whose tokens they are.
        tokens: soft tokens of each image.
        side: of the squares handed out, in pixels.
        config: prompt, length, and what is done about images that cannot be read.

    Raises:
        InputError: a text is longer than the config allows; it says how many are, and the longest. Or the config allows
            more than the language model reads.
    """

    def __init__(
        self, source: Source, texts: Sequence[str], lm: FrozenLM, tokens: int, side: int, config: PairsConfig
    ) -> None:
        self._source, self.texts, self._side = source, list(texts), side
        self._damage = Damage(config.damaged)
        self._length = config.length
        if tokens + config.length > lm.context_length:
            raise InputError(
                f"data.length: wanted at most {lm.context_length - tokens} tokens beside the {tokens} of an image, as "
                f"many as {lm.name} reads, got {config.length}"
            )
        encoded = {text: encode(lm, [(config.prompt, f" {text}{END}")]) for text in dict.fromkeys(texts)}
        # All but the place of the image.
        lengths = Counter({text: len(ids) - 1 for text, (ids, _) in encoded.items()})
        many = sum(lengths[text] > config.length for text in texts)
        if many:
            text, length = lengths.most_common(1)[0]
            raise InputError(
                f"data.length: {many} of {len(texts)} texts have more than "
                f"{config.length} tokens, the longest {length} ({text[:60]!r}): raise it, or leave such images out"
            )
        self._placed = {text: self._arrays(ids, labels, tokens) for text, (ids, labels) in encoded.items()}

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, index: int, generator: np.random.Generator) -> Record:
        """The record; for an image that cannot be read, if the config says so, another that the generator draws."""
        others = (int(generator.integers(len(self))) for _ in count())
        return self._damage.first(self.record, chain([index], others))

    def record(self, index: int) -> Record:
        """That of an image, as it is.

        Raises:
            InputError: it cannot be read.
        """
        image = to_array(self._source[index].image, self._side)
        return {"images": image, **self._placed[self.texts[index]]}

    def _arrays(self, ids: Sequence[int], labels: Sequence[int], tokens: int) -> Record:
        spliced = splice(ids, labels, [tokens])
        behind = self._length + tokens - len(spliced.ids_n)
        said_k = np.flatnonzero(spliced.labels_n != NO_LABEL)
        more = self._length - len(said_k)
        return {
            "ids": np.pad(spliced.ids_n, (0, behind)),
            "soft": np.pad(spliced.soft_n, (0, behind), constant_values=-1),
            "at": np.pad(said_k - 1, (0, more)).astype(np.int32),
            "said": np.pad(spliced.labels_n[said_k], (0, more), constant_values=NO_LABEL),
        }


def open_pairs(config: PairsConfig) -> tuple[tuple[Source, list[str]], tuple[Source, list[str]], int]:
    """Images with their texts to train on, others for validation, and how many images of all have no text.

    Raises:
        InputError: nothing there, no image with a text, or a class without a name.
    """
    train = open_source(config.train, split=config.train_split)
    if config.validation is None:
        train, validation = hold_out(train)
        place = config.train
    else:
        validation = open_source(config.validation, split=config.validation_split)
        place = config.validation
    trained, held_out = _with_texts(train, config.train, config), _with_texts(validation, place, config)
    left_out = len(train) + len(validation) - len(trained[1]) - len(held_out[1])
    return trained, held_out, left_out


def _with_texts(source: Source, path: str, config: PairsConfig) -> tuple[Source, list[str]]:
    """Those of the images that have a text, and their texts."""
    found: list[str | None]
    if config.text == "caption":
        found = [_first_line(source.caption(i)) for i in range(len(source))]
    else:
        labels = source.labels
        table = class_names.table_beside(path)
        names = class_names.english((one for one in labels if one is not None), Path(path), table)
        found = [None if one is None else names[one] for one in labels]
    texts = {i: text for i, text in enumerate(found) if text}
    if not texts:
        raise InputError(f"{path}: wanted images with a {config.text}, none has one: see data.text")
    if len(texts) < len(source):
        source = Part(source, np.array(list(texts)), f"with a {config.text}")
    return source, list(texts.values())


def _first_line(caption: str | None) -> str | None:
    lines = (caption or "").splitlines()
    return " ".join(lines[0].split()) if lines else None


def validation_batch(pairs: Pairs) -> dict[str, np.ndarray]:
    """So many records as there are for validation, spread evenly, as a batch; and `other_images`, of each the image of
    the next record whose text is another.

    Raises:
        InputError: an image cannot be read, or all texts are the same.
    """
    places = np.linspace(0, len(pairs) - 1, min(VALIDATION_IMAGES, len(pairs))).round().astype(int)
    records = [pairs.record(int(i)) for i in places]
    texts = [pairs.texts[i] for i in places]
    if len(set(texts)) < 2:
        raise InputError(f"data.validation: wanted images with different texts, all have {texts[0]!r}")
    turned = [[(i + k) % len(texts) for k in range(1, len(texts))] for i in range(len(texts))]
    others = [next(j for j in around if texts[j] != texts[i]) for i, around in enumerate(turned)]
    batch = {name: np.stack([record[name] for record in records]) for name in records[0]}
    return {**batch, "other_images": batch["images"][others]}
