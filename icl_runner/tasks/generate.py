"""Text -> image: the words of a picture for a condition, after examples of conditions and pictures.

SPAE paper (arXiv 2306.17842), section 4.2: for instance "an image of 7" after some fifty digits with their names, and
then "an image of 1+7".
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from icl_runner import prompts
from icl_runner.cells import number, shuffled
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import Images
from icl_runner.figures import Measure
from icl_runner.options import NameOrPath, optional, whole, wholes
from icl_runner.pictures.drawing import Drawing, DrawingCell, Judge, one_of
from icl_runner.pictures.progressive import Pair, flat_words
from icl_runner.pictures.task import PIXELS, DrawingTask
from icl_runner.task import task
from spae.class_names import WORDNET_ID, imagenet_numbers
from spae.errors import InputError
from spae.images import to_array

DIGITS = tuple(map(str, range(10)))
DIGIT = Measure("digit", "digit recognised, %", 100, 1, share=True, floor=("10.0", "one digit in ten"))
CLASSES = (
    Measure("class", "class recognised, %", 100, 1, share=True),
    Measure("five", "class among the judge's five best, %", 100, 1, share=True),
)
CAPTIONS = 10  # asked for, unless told


@task
@dataclass(frozen=True, kw_only=True)
class Generate(DrawingTask):
    """Images from text, drawn in words.

    example: spae-icl run generate --model spae-lm/default --data mnist.npz --condition sum
    """

    title = "Images from text"
    measures = (DIGIT, *CLASSES, *PIXELS)

    # as for classify, such as mnist.npz; for --condition caption as for caption
    data: NameOrPath
    # what a picture is asked for by: "an image of 7", "an image of 1+6", or a caption
    condition: Literal["class", "sum", "caption"] = "class"
    # pictures of each class in context; of captions, in all
    shots: Annotated[tuple[int, ...], wholes(1)] = (5,)
    classes: Annotated[int | None, whole(1), optional("N")] = None  # how many classes (all), or captions (10)

    def examples(self) -> ExampleSet:
        from icl_runner.data import sets

        look = sets.captioned if self.condition == "caption" else sets.labelled
        return look(self.data, self.split)

    def cells(self, images: Images) -> list[DrawingCell]:
        judge = self._judge(images.examples)
        return [
            self.cell(images, shots, layers, judge)
            for shots, layers in itertools.product(self.shots, self.layers)
        ]

    def cell(self, images: Images, shots: int, layers: int, judge: Judge | None = None) -> DrawingCell:
        """The pictures of every class, `rounds` times with other contexts.

        A context holds `shots` pictures of every class, shuffled; the target of a query is a further picture of its
        class, the same whatever the number of shots, so that no query's target is in its context. All queries of a
        round share the context.

        Args:
            judge: tells whether a picture shows its digit or class.

        Raises:
            InputError: too few images of a class, sums of what are no digits, or a context that does not fit.
        """
        examples = images.examples
        if self.condition not in ("class", "sum", "caption"):
            raise InputError(f"generate: wanted the condition class, sum or caption; got {self.condition!r}")
        if shots < 1 or self.rounds < 1 or (self.classes is not None and self.classes < 1):
            raise InputError(
                f"generate: wanted at least 1 shot, class and round; got {shots}, {self.classes}, {self.rounds}"
            )
        digits = {one.label for one in examples.examples} <= set(DIGITS)
        if self.condition == "sum" and not digits:
            raise InputError(f"generate: wanted digits for sums; {examples.name} has other classes")
        drawings = [
            drawing
            for turn in range(self.rounds)
            for drawing in self._drawings(images, turn, shots, layers, digits)
        ]
        setting = {"condition": self.condition, "shots": shots, "ways": self.classes}
        told = {key: value for key, value in setting.items() if value is not None}
        kind = f"{self.condition}-{shots}shot"
        return self.drawing_cell(images, kind, layers, told, drawings, prompts.generate, judge)

    def _drawings(self, images: Images, turn: int, shots: int, layers: int, digits: bool) -> list[Drawing]:
        """Those of one round; `digits`: the classes are."""
        examples, tokenizer, seed = images.examples, images.tokenizer, self.seed
        most = max(self.shots)
        if self.condition == "caption":
            context, queries = _captioned(examples, shots, most, self.classes or CAPTIONS, seed + turn)
        else:
            context, queries = _classes(examples, shots, most, self.classes, seed + turn)
        pyramids = images.pyramids([one.image_key for one in (*context, *queries)])
        words = {key: flat_words(pyramid, layers) for key, pyramid in pyramids.items()}

        def told(one: Example) -> str:
            if self.condition == "caption":
                return " ".join(one.captions[0].split())
            return f"an image of {one.label if digits else examples.class_names[one.label or '']}"

        def label(one: Example) -> str | None:
            return None if self.condition == "caption" else one.label

        pairs = tuple(Pair(told(one), words[one.image_key], label(one)) for one in context)
        drawings = []
        for query in queries:
            id_ = f"{turn}-{query.key}"
            is_sum = self.condition == "sum"
            text = f"an image of {_sum(query.label or '', seed, id_)}" if is_sum else told(query)
            drawings.append(
                Drawing(
                    id=id_,
                    shown=text,
                    condition=text,
                    pairs=pairs,
                    target=to_array(tokenizer.square(examples.image(query)), tokenizer.image_size),
                    target_words=words[query.image_key],
                    copied_words=one_of(pairs, seed, id_).words,
                    label=label(query),
                )
            )
        return drawings

    def _judge(self, examples: ExampleSet) -> Judge | None:
        """For MNIST: which digit a picture shows. For classes of ImageNet: which of the data's. None for others, and
        for captions."""
        path = Path(self.data)
        if path.suffix == ".npz" or (path / "mnist.npz").is_file():
            from icl_runner.pictures.digits import DigitJudge

            return DigitJudge(path)
        labels = {one.label for one in examples.examples if one.label is not None}
        if self.condition == "class" and len(labels) > 1 and all(map(WORDNET_ID.fullmatch, labels)):
            from icl_runner.pictures.photographs import PhotographJudge

            return PhotographJudge(labels) if labels <= imagenet_numbers().keys() else None
        return None


def _classes(
    examples: ExampleSet, shots: int, most: int, ways: int | None, seed: int
) -> tuple[list[Example], list[Example]]:
    """The context, and one query of every class, behind the `most` shots that any cell has."""
    by_label: dict[str, list[Example]] = {}
    for one in examples.examples:
        if one.label is not None:
            by_label.setdefault(one.label, []).append(one)
    labels = sorted(by_label)
    if ways is not None and ways > len(labels):
        raise InputError(f"generate: wanted at most {len(labels)} ways of {examples.name}; got {ways}")
    labels = sorted(shuffled(labels, seed, str)[:ways])
    few = [label for label in labels if len(by_label[label]) <= most]
    if few or not labels:
        raise InputError(
            f"generate: wanted {most + 1} images of every class of {examples.name}, {most} for the context and one "
            f"as the target; {', '.join(few[:3]) or 'no image'} has fewer: take fewer shots"
        )
    chosen = {label: shuffled(by_label[label], seed, _key)[: most + 1] for label in labels}
    context = [one for label in labels for one in chosen[label][:shots]]
    return shuffled(context, seed, _key), [chosen[label][most] for label in labels]


def _captioned(
    examples: ExampleSet, shots: int, most: int, queries: int, seed: int
) -> tuple[list[Example], list[Example]]:
    of_images = {one.image_key: one for one in examples.examples if one.captions}
    if len(of_images) < most + queries:
        raise InputError(
            f"generate: wanted {most} captioned images as context and {queries} as queries; {examples.name} has "
            f"{len(of_images)}: take fewer"
        )
    chosen = shuffled(list(of_images.values()), seed, _key)
    return chosen[:shots], chosen[most : most + queries]


def _sum(digit: str, seed: int, id_: str) -> str:
    """Two numbers that make the digit, neither of them 0 where that is possible."""
    total = int(digit)
    first = 1 + number(seed, f"sum {id_}") % (total - 1) if total > 1 else total
    return f"{first}+{total - first}"


def _key(one: Example) -> str:
    return one.key
