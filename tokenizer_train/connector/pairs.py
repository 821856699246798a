"""What a connector is trained on: images, each with what is to be said of it, as arrays of one shape."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, count

import numpy as np

from spae.errors import InputError
from spae.frozen_lm import FrozenLM
from spae.images import to_array
from spae.sources import Source
from spae.splice import NO_LABEL, encode, splice
from tokenizer_train.connector.config import PairsConfig
from tokenizer_train.connector.dialogues import Dialogue
from tokenizer_train.damage import Damage
from tokenizer_train.stream import Record, Records

VALIDATION_IMAGES = 64  # behind the figures during training


class Pairs(Records):
    """Images of a source and dialogues, one for each.

    A record has `images`, uint8 (S, S, 3); of the places of its text `ids`, int32 (N,), and `soft`, int32 (N,), as
    `spae.splice.Spliced` has them, 0 and -1 behind its end; and `at` and `said`, int32 (L,), the places whose next
    token is to be said and that token, 0 and NO_LABEL behind the last of them. L = `data.length`, N = L + soft tokens.

    Args:
        source: of the images.
        dialogues: of each image.
        lm: whose tokens they are.
        tokens: soft tokens of each image.
        side: of the squares handed out, in pixels.
        config: prompt, length, and what is done about images that cannot be read.

    Raises:
        InputError: a text is longer than the config allows; it says how many are, and the longest. Or the config allows
            more than the language model reads.
    """

    def __init__(
        self,
        source: Source,
        dialogues: Sequence[Dialogue],
        lm: FrozenLM,
        tokens: int,
        side: int,
        config: PairsConfig,
    ) -> None:
        self._source, self.dialogues, self._side = source, list(dialogues), side
        self._damage = Damage(config.damaged)
        self._length = config.length
        if tokens + config.length > lm.context_length:
            raise InputError(
                f"data.length: wanted at most {lm.context_length - tokens} tokens beside the {tokens} of an image, as "
                f"many as {lm.name} reads, got {config.length}"
            )
        encoded = {dialogue: encode(lm, dialogue) for dialogue in dict.fromkeys(dialogues)}
        # All but the place of the image.
        lengths = Counter({dialogue: len(ids) - 1 for dialogue, (ids, _) in encoded.items()})
        many = sum(lengths[dialogue] > config.length for dialogue in dialogues)
        if many:
            longest, length = lengths.most_common(1)[0]
            raise InputError(
                f"data.length: {many} of {len(dialogues)} texts have more than {config.length} tokens, the longest "
                f"{length} ({longest[0][1].strip()[:60]!r}): raise it, or leave such images out"
            )
        self._placed = {one: self._arrays(ids, labels, tokens) for one, (ids, labels) in encoded.items()}

    def __len__(self) -> int:
        return len(self.dialogues)

    def key(self, index: int) -> str:
        """Of its image."""
        return self._source.key(index)

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
        return {"images": image, **self._placed[self.dialogues[index]]}

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


def validation_batch(pairs: Pairs) -> dict[str, np.ndarray]:
    """So many records as there are for validation, spread evenly, as a batch; and `other_images`, of each the
    next image that is another and of which something else is to be said.

    Raises:
        InputError: an image cannot be read, or there is no such other image.
    """
    places = np.linspace(0, len(pairs) - 1, min(VALIDATION_IMAGES, len(pairs))).round().astype(int)
    records = [pairs.record(int(i)) for i in places]
    texts = [tuple(said for _, said in pairs.dialogues[i]) for i in places]
    keys = [pairs.key(i) for i in places]
    others = []
    for i, text in enumerate(texts):
        around = ((i + k) % len(texts) for k in range(1, len(texts)))
        other = next((j for j in around if texts[j] != text and keys[j] != keys[i]), None)
        if other is None:
            raise InputError(
                f"data.validation: wanted different images with different texts, {keys[i]} ({text[0].strip()!r}) has "
                "no such other"
            )
        others.append(other)
    batch = {name: np.stack([record[name] for record in records]) for name in records[0]}
    return {**batch, "other_images": batch["images"][others]}
