"""Tasks whose answers are texts: `TextTask`, and `QuestionTask` for those that ask one question about each image."""

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from icl_runner.cells import Call, Item, TextCell, shuffled
from icl_runner.data.examples import Example
from icl_runner.data.images import NO_IMAGE, Images
from icl_runner.episodes.draw import Episode
from icl_runner.figures import BLIND, OTHER, Control
from icl_runner.options import Count, Switch
from icl_runner.prompts import Prompt
from icl_runner.task import Task
from spae.errors import InputError

# inspect-ai takes three seconds to import.
if TYPE_CHECKING:
    import inspect_ai


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """A task whose answers are short texts, each asked for again with another image's words: its control."""

    controls: ClassVar[tuple[Control, ...]] = (OTHER,)

    control: bool = True  # ask everything again with another image's words

    @staticmethod
    @abstractmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """What an item shows and the answers by key -> values by key, and metadata to show with them."""

    def cell(
        self,
        name: str,
        setting: Mapping[str, Any],
        items: tuple[Item, ...],
        images: Images,
        episodes: tuple[Episode, ...] = (),
    ) -> TextCell:
        """A cell of this task: scored by its rule, and with images for those who read its log, and for models that
        see."""
        return TextCell(
            name=name,
            task=self.name,
            setting=setting,
            items=items,
            score=self.score,
            photograph=images.photograph,
            picture=images.picture,
            episodes=episodes,
        )

    @classmethod
    def scored_again(cls, metadata: Mapping[str, Any]) -> dict[str, float] | None:
        if not {"shown", "answers"} <= set(metadata):
            return None
        return cls.score(metadata["shown"], metadata["answers"])[0]

    def build(self, cell: TextCell, metadata: Mapping[str, Any]) -> "inspect_ai.Task":
        from icl_runner.texts.asking import text_task

        return text_task(cell, metadata)


@dataclass(frozen=True, kw_only=True)
class QuestionTask(TextTask):
    """A task that asks one question about each image, perhaps after examples: the same ones for all.

    Attributes:
        key: of the answers; of the controls' with their suffix behind it.
        max_tokens: of an answer.
        wanted: what examples there must be, in words.
    """

    controls = (OTHER, BLIND)
    key: ClassVar[str] = "answer"
    max_tokens: ClassVar[int]
    wanted: ClassVar[str]

    count: Count = 100  # to ask about
    blind: Switch = False  # ask everything again without an image

    @abstractmethod
    def is_usable(self, example: Example, class_names: Mapping[str, str]) -> bool:
        """Whether an example can be asked about and shown; `class_names`: label -> name."""

    @abstractmethod
    def prompt(self, support: Sequence[tuple[Example, str]], query: Example, words: str) -> Prompt:
        """The question about `words`, those of the query, of another image or none, after examples with their words."""

    @abstractmethod
    def truth(self, query: Example, class_names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """The answer wanted, and what scoring needs, as plain JSON."""

    def few_shot(self, images: Images, shots: Sequence[int]) -> list[TextCell]:
        """A cell for each number of examples and of layers. The examples are drawn first, those of the cell that has
        most: no query's image is among them, and all cells ask the same."""
        examples = images.examples
        usable = [one for one in examples.examples if self.is_usable(one, examples.class_names)]
        if not usable:
            raise InputError(f"{self.name}: wanted {self.wanted}, {examples.name} has none")
        order = shuffled(usable, self.seed, lambda example: example.key)
        most = max(shots)
        taken = {example.image_key for example in order[:most]}
        queries, others = self._with_others(
            [example for example in order[most:] if example.image_key not in taken]
        )
        cells = []
        for count, layers in itertools.product(shots, self.layers):
            support = order[:count]
            words = images.words([one.image_key for one in (*support, *queries)] + others, layers)
            words[NO_IMAGE] = images.blank
            setting = {"layers": layers, "tokens_per_image": images.tokens(layers)}
            cells.append(
                self.cell(
                    f"{self.name}-{f'{count}shot-' if count else ''}layers{layers}",
                    {"shots": count, **setting} if count else setting,
                    self.items(support, queries, others, words, examples.class_names),
                    images,
                )
            )
        return cells

    def items(
        self,
        support: Sequence[Example],
        queries: Sequence[Example],
        others: Sequence[str],
        words: Mapping[str, str],
        class_names: Mapping[str, str],
    ) -> tuple[Item, ...]:
        """The calls for every query: its question, and the same with another image's words and without an image.

        Args:
            support: the examples in context.
            others: of each query, the image key whose words take the place of its own in the control.
            words: image key -> its words; of NO_IMAGE what stands for none.
            class_names: label -> name.
        """
        seen = [(one, words[one.image_key]) for one in support]
        made = []
        for query, other in zip(queries, others, strict=True):
            asked = [("", query.image_key)]
            asked += [(OTHER.suffix, other)] if self.control else []
            asked += [(BLIND.suffix, NO_IMAGE)] if self.blind else []
            calls = tuple(
                Call(f"{self.key}{suffix}", self.prompt(seen, query, words[image]), self.max_tokens)
                for suffix, image in asked
            )
            target, known = self.truth(query, class_names)
            shown = {"words": words[query.image_key], "query_key": query.image_key, "other_key": other}
            made.append(Item(query.key, calls, target, {**known, **shown}))
        return tuple(made)

    def _with_others(self, left: Sequence[Example]) -> tuple[list[Example], list[str]]:
        """The first `count` examples, and for each the image key of the next that differs in image (and in class); its
        own where there is no control, because nobody asks about it."""
        queries = list(left[: self.count])
        others = []
        for place, query in enumerate(queries):
            around = itertools.chain(left[place + 1 :], left[:place])
            other = next(
                (
                    one.image_key
                    for one in around
                    if one.image_key != query.image_key and (one.label is None or one.label != query.label)
                ),
                None if self.control else query.image_key,
            )
            if other is None:
                raise InputError(
                    f"{self.name}: wanted another image for the control of {query.key}, of another class where they "
                    "have one, and none is left: give more images, or --no-control"
                )
            others.append(other)
        if not queries:
            raise InputError(
                f"{self.name}: wanted an example besides those in context, got none: ask for fewer shots"
            )
        return queries, others
