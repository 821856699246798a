"""Image -> image: the words of a clean image for those of a corrupted one, after examples of such pairs.

SPAE paper (arXiv 2306.17842), section 4.2, and V2L-Tokenizer (arXiv 2403.07874), whose ten examples are corrupted less
and less: 0.50, 0.47, .., 0.23. There the examples are copies of the query's own clean image, so that the answer stands
in the context ten times. That is offered as "published-leaking"; by default the examples are of other images.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import UInt8

from icl_runner import prompts
from icl_runner.cells import number, shuffled
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import Images
from icl_runner.options import Count, NameOrPath, choice, option, wholes
from icl_runner.pictures.corruptions import CORRUPTIONS, corrupt, replace_words, strengths
from icl_runner.pictures.drawing import Drawing, DrawingCell, one_of
from icl_runner.pictures.progressive import Pair, flat_words
from icl_runner.pictures.task import DrawingTask
from icl_runner.task import task
from spae.errors import InputError
from spae.images import to_array
from spae.pyramid import Pyramid

# Not the image but its words are corrupted.
WORDS = "words"
KINDS = (*CORRUPTIONS, WORDS)


@task
@dataclass(frozen=True, kw_only=True)
class Transform(DrawingTask):
    """Clean images from corrupted ones, drawn in words.

    example: spae-icl run transform --model spae-lm/default --data images --kind inpainting
    """

    title = "Images from images"

    data: NameOrPath  # any images
    kind: Annotated[str, choice(*KINDS)] = "denoise"  # what was done to the images
    # published-leaking: the examples are made of the query itself
    context: Literal["leak-free", "published-leaking"] = "leak-free"
    first: Annotated[float, option("X")] = 0.5  # strength of the first example
    last: Annotated[float, option("X")] = 0.2  # strength of the query
    shots: Annotated[tuple[int, ...], wholes(1)] = (10,)  # examples in context
    count: Count = 20  # to ask about

    def examples(self) -> ExampleSet:
        from icl_runner.data import sets

        return sets.pictured(self.data, self.split)

    def cells(self, images: Images) -> list[DrawingCell]:
        return [
            self.cell(images, shots, layers) for shots, layers in itertools.product(self.shots, self.layers)
        ]

    @classmethod
    def describe(cls, setting: Mapping[str, Any]) -> tuple[str, Collection[str]]:
        if "transform" not in setting:
            return cls.name, ()
        return f"{cls.name} {setting['transform']}", ("transform",)

    def cell(self, images: Images, shots: int, layers: int) -> DrawingCell:
        """`count` images to be made clean, `rounds` times with other contexts and other queries.

        The examples in context are corrupted with strengths that fall evenly from `first`; the query's is `last`. In a
        leak-free context they are other images, the same for all queries of a round; none of them is a query of any
        round, and all numbers of shots have the same queries. In the published one they are corrupted copies of the
        query itself, with the answer beside them.

        Raises:
            InputError: an unknown kind or context, strengths outside of [0, 1], too few images, or a context that does
                not fit.
        """
        drawings = self._drawings(images, shots, layers)
        setting = {
            "transform": self.kind,
            "context": self.context,
            "shots": shots,
            "first": self.first,
            "last": self.last,
        }
        kind = f"{self.kind}-{self.context}-{shots}shot"
        return self.drawing_cell(images, kind, layers, setting, drawings, prompts.transform)

    def _drawings(self, images: Images, shots: int, layers: int) -> list[Drawing]:
        falling = strengths(self.first, self.last, shots)
        in_context = 0 if self._leaks else shots
        most = 0 if self._leaks else max(self.shots)
        chosen = self._chosen(images.examples, most + self.count)
        worse = _Corrupted(images, chosen, self.kind, layers, self.seed)
        drawings: list[Drawing] = []
        for turn in range(self.rounds):
            own = chosen[turn * (most + self.count) : (turn + 1) * (most + self.count)]
            shared = worse.pairs(list(zip(own[:in_context], falling, strict=False)))
            drawings += self._round(worse, turn, own[most:], shared, falling)
        return drawings

    def _round(
        self,
        worse: "_Corrupted",
        turn: int,
        queries: Sequence[Example],
        shared: tuple[Pair, ...],
        falling: Sequence[float],
    ) -> list[Drawing]:
        """Those of one round; `shared`: its leak-free context."""
        *in_context, of_query = falling
        drawings = []
        corrupted = worse.made([(query, of_query) for query in queries])
        for query, (picture, words) in zip(queries, corrupted, strict=True):
            pairs = worse.pairs([(query, strength) for strength in in_context]) if self._leaks else shared
            id_ = f"{turn}-{query.image_key}"
            drawings.append(
                Drawing(
                    id=id_,
                    shown=f"{self.kind}, strength {of_query:g}"
                    + (f", {self.context}" if self._leaks else ""),
                    condition=words,
                    pairs=pairs,
                    target=worse.clean(query),
                    target_words=worse.clean_words(query),
                    copied_words=one_of(pairs, self.seed, id_).words,
                    input=picture,
                    input_words=words,
                    label=query.image_key,
                )
            )
        return drawings

    @property
    def _leaks(self) -> bool:
        return self.context == "published-leaking"

    def _chosen(self, examples: ExampleSet, of_round: int) -> list[Example]:
        """The images of all rounds, so many for each, none twice."""
        if self.kind not in KINDS:
            raise InputError(f"transform: wanted one of {', '.join(KINDS)}; got {self.kind!r}")
        if self.context not in ("leak-free", "published-leaking"):
            raise InputError(
                f"transform: wanted the context leak-free or published-leaking; got {self.context!r}"
            )
        if self.count < 1 or self.rounds < 1:
            raise InputError(
                f"transform: wanted at least 1 query and 1 round; got {self.count} and {self.rounds}"
            )
        of_images = {one.image_key: one for one in examples.examples}
        if len(of_images) < self.rounds * of_round:
            raise InputError(
                f"transform: wanted {of_round - self.count} images as context and {self.count} as queries for each of "
                f"{self.rounds} rounds; {examples.name} has {len(of_images)} images: take fewer"
            )
        chosen = shuffled(list(of_images.values()), self.seed, lambda one: one.image_key)
        return chosen[: self.rounds * of_round]


class _Corrupted:
    """Images and what becomes of them: pictures and words."""

    def __init__(self, images: Images, chosen: Sequence[Example], kind: str, layers: int, seed: int) -> None:
        self.examples, self.tokenizer = images.examples, images.tokenizer
        self.pyramids = images.pyramids([one.image_key for one in chosen])
        self.kind, self.layers, self.seed = kind, layers, seed

    def clean(self, one: Example) -> UInt8[np.ndarray, "s s 3"]:
        """At the size that is decoded."""
        return to_array(self.tokenizer.square(self.examples.image(one)), self.tokenizer.image_size)

    def clean_words(self, one: Example) -> tuple[str, ...]:
        return flat_words(self.pyramids[one.image_key], self.layers)

    def made(
        self, wanted: Sequence[tuple[Example, float]]
    ) -> list[tuple[UInt8[np.ndarray, "s s 3"], tuple[str, ...]]]:
        """Of images with strengths: the corrupted picture and its words."""
        if not wanted:
            return []
        # Its own noise for every image and strength, the same in every run.
        seeds = [number(self.seed, f"{one.image_key} {strength}") for one, strength in wanted]
        pyramids: list[Pyramid]
        if self.kind == WORDS:
            vocabulary = self.tokenizer.vocabulary
            pyramids = [
                replace_words(self.pyramids[one.image_key].prefix(self.layers), strength, vocabulary, own)
                for (one, strength), own in zip(wanted, seeds, strict=True)
            ]
            made = self.tokenizer.decode(pyramids, self.layers)
        else:
            # Of what the tokenizer looks at, as the words of the clean images are.
            squares = [
                corrupt(self.tokenizer.square(self.examples.image(one)), self.kind, strength, own)
                for (one, strength), own in zip(wanted, seeds, strict=True)
            ]
            pyramids = self.tokenizer.encode(squares)
            made = np.stack([to_array(square, self.tokenizer.image_size) for square in squares])
        return [(picture, flat_words(p, self.layers)) for picture, p in zip(made, pyramids, strict=True)]

    def pairs(self, wanted: Sequence[tuple[Example, float]]) -> tuple[Pair, ...]:
        """Examples in context: the words of the corrupted image, and those of the clean one."""
        corrupted = self.made(wanted)
        return tuple(
            Pair(words, self.clean_words(one), one.image_key)
            for (one, _), (_, words) in zip(wanted, corrupted, strict=True)
        )
