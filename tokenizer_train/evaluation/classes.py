"""What an evaluation asks of labelled images: the few-shot check, naming, mosaics; and what cannot be asked."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from spae.class_names import english, table_beside
from spae.errors import InputError
from spae.guidance.scores import word_features
from spae.progress import counted
from spae.sources import Source
from spae.tokenizer import Tokenizer
from tokenizer_train.evaluation.few_shot import draw_episodes
from tokenizer_train.evaluation.mosaics import draw_groups, mosaics
from tokenizer_train.evaluation.naming import WORDS, centred, naming
from tokenizer_train.evaluation.word_fit import WordFit

SETTINGS = ((2, 1), (5, 1), (5, 5))  # ways, shots of the few-shot check
# What needs labels: its key among the figures -> its name in --skip.
OF_CLASSES = {"few_shot": "few-shot", "naming": "naming", "mosaics": "mosaics"}


class Classes:
    """The classes of the first images of an evaluation.

    Attributes:
        episodes: of the few-shot check, for each setting; none if it is not measured.
        not_measured: what is wanted and cannot be measured on these images -> why not.

    Args:
        source: where the images are.
        indices_n: of these images in it.
        data: the path of the source, beside which class names may lie.
        wanted: which of `OF_CLASSES`; of none no label is read.
        episodes: of each few-shot setting.
        seed: of all that is drawn.

    Raises:
        InputError: a label cannot be read.
    """

    def __init__(
        self,
        source: Source,
        indices_n: Int[np.ndarray, " n"],
        data: str,
        wanted: Iterable[str],
        episodes: int,
        seed: int,
    ) -> None:
        self._source, self._indices_n, self._seed = source, indices_n, seed
        self._wanted = set(wanted)
        self.episodes: list[np.ndarray] = []
        self.not_measured: dict[str, str] = {}
        if not self._wanted:
            return
        found = [source.label(index) for index in counted(indices_n.tolist(), "labels", "label")]
        labels = [label for label in found if label is not None]
        if len(labels) < len(found):
            self._leave_out(self._wanted, "not every image has a label")
        if "few_shot" in self._wanted:
            numbers_n = np.unique(labels, return_inverse=True)[1]
            try:
                self.episodes = [draw_episodes(numbers_n, *setting, episodes, seed) for setting in SETTINGS]
            except InputError as error:
                self._leave_out({"few_shot"}, str(error))
        if self._wanted & {"naming", "mosaics"}:
            self._name(labels, data)

    def _name(self, labels: list[str], data: str) -> None:
        """The classes' names, or why there are none that say anything."""
        try:
            names = english(labels, Path(data), table_beside(data))
        except InputError as error:
            self._leave_out({"naming", "mosaics"}, str(error))
            return
        self._names_n = [names[label] for label in labels]
        count = len(set(self._names_n))
        if all(name.isdigit() for name in names.values()):
            self._leave_out({"naming", "mosaics"}, "the classes have numbers and no names")
        elif count < 2:
            self._leave_out({"naming", "mosaics"}, "needs images of two classes, got one")
        elif len(draw_groups(self._names_n, self._seed)) < 2:
            reason = f"needs two times four images of four classes, got {len(labels)} of {count}"
            self._leave_out({"mosaics"}, reason)

    def _leave_out(self, what: Iterable[str], reason: str) -> None:
        self.not_measured |= dict.fromkeys(self._wanted.intersection(what), reason)
        self._wanted = self._wanted.difference(what)

    def named(self, tokenizer: Tokenizer, fit: WordFit, ids_nk: Int[np.ndarray, "n k"]) -> dict[str, Any]:
        """The figures of naming and of mosaics, those that are wanted and can be measured.

        Args:
            fit: with the vectors of all images.
            ids_nk: the words of all images.
        """
        if not self._wanted & {"naming", "mosaics"}:
            return {}
        names = sorted(set(self._names_n))
        vectors = dict(zip(names, word_features(fit.guidance, names), strict=True))
        result: dict[str, Any] = {}
        if "naming" in self._wanted:
            count = len(self._names_n)
            words_nd = centred(fit.words_vf)[ids_nk[:count, :WORDS]].sum(axis=1)
            result["naming"] = naming(self._names_n, vectors, words_nd, fit.images_nf[:count], self._seed)
        if "mosaics" in self._wanted:
            result["mosaics"] = mosaics(
                tokenizer, fit, self._source, self._indices_n, self._names_n, vectors, self._seed
            )
        return result
