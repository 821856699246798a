"""Text -> image: the words of a picture for a condition, after examples of conditions and pictures.

SPAE paper (arXiv 2306.17842), section 4.2: for instance "an image of 7" after some fifty digits with their names, and
then "an image of 1+7".
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from icl_runner import prompts
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.pictures.progressive import Pair, flat_words
from icl_runner.tasks import shuffled
from icl_runner.tasks.drawing import Drawing, DrawingCell, Judge, Progress, number, one_of
from spae.errors import InputError
from spae.images import to_array
from spae.pyramid import Pyramid
from spae.tokenizer import Tokenizer

Condition = Literal["class", "sum", "caption"]
DIGITS = tuple(map(str, range(10)))


def cell(
    examples: ExampleSet,
    tokenizer: Tokenizer,
    pyramids: Callable[[Sequence[str]], Mapping[str, Pyramid]],
    *,
    condition: Condition = "class",
    shots: int = 5,
    ways: int | None = None,
    rounds: int = 1,
    progress: Progress | None = None,
    seed: int = 0,
    bundle: str = "default",
    judge: Judge | None = None,
) -> DrawingCell:
    """The pictures of every class, `rounds` times with other contexts.

    A context holds `shots` pictures of every class, shuffled; the target of a query is a further picture of its class,
    so that no query's target is in its context. All queries of a round share the context.

    Args:
        examples: labelled images, or captioned ones for "caption".
        pyramids: image keys -> pyramids.
        condition: "class": "an image of 7", "an image of beagle"; "sum": the same context, and queries such as
            "an image of 1+7"; "caption": the first caption of an image, `shots` images in all as context and `ways`
            others (10 by default) as queries.
        ways: how many classes, drawn at random; all by default.
        judge: tells which digit a picture shows, for digits.

    Raises:
        InputError: too few images of a class, sums of what are no digits, or a context that does not fit.
    """
    progress = progress or Progress()
    if condition not in ("class", "sum", "caption"):
        raise InputError(f"generate: wanted the condition class, sum or caption; got {condition!r}")
    if shots < 1 or rounds < 1 or (ways is not None and ways < 1):
        raise InputError(f"generate: wanted at least 1 shot, way and round; got {shots}, {ways}, {rounds}")
    digits = {one.label for one in examples.examples} <= set(DIGITS)
    if (condition == "sum" or judge is not None) and not digits:
        raise InputError(
            f"generate: wanted digits for sums and their judge; {examples.name} has other classes"
        )
    drawings: list[Drawing] = []
    for turn in range(rounds):
        if condition == "caption":
            context, queries = _captioned(examples, shots, ways or 10, seed + turn)
        else:
            context, queries = _classes(examples, shots, ways, seed + turn)
        words = {
            key: flat_words(pyramid, progress.layers)
            for key, pyramid in pyramids([one.image_key for one in (*context, *queries)]).items()
        }

        def told(one: Example) -> str:
            if condition == "caption":
                return " ".join(one.captions[0].split())
            return f"an image of {one.label if digits else examples.class_names[one.label or '']}"

        pairs = tuple(Pair(told(one), words[one.image_key]) for one in context)
        for query in queries:
            id_ = f"{turn}-{query.key}"
            text = f"an image of {_sum(query.label or '', seed, id_)}" if condition == "sum" else told(query)
            drawings.append(
                Drawing(
                    id=id_,
                    shown=text,
                    condition=text,
                    pairs=pairs,
                    target=to_array(tokenizer.square(examples.image(query)), tokenizer.image_size),
                    target_words=words[query.image_key],
                    copied_words=one_of(pairs, seed, id_).words,
                    digit=int(query.label or 0) if digits and judge is not None else None,
                )
            )
    setting = {"condition": condition, "shots": shots, "ways": ways, **progress.setting(tokenizer.shape)}
    return DrawingCell(
        name=f"generate-{condition}-{shots}shot-{tokenizer.shape.tokens(progress.layers)}words",
        task="generate",
        setting={key: value for key, value in setting.items() if value is not None},
        drawings=tuple(drawings),
        progress=progress,
        write=prompts.generate,
        tokenizer=tokenizer,
        bundle=bundle,
        seed=seed,
        judge=judge,
    )


def _classes(
    examples: ExampleSet, shots: int, ways: int | None, seed: int
) -> tuple[list[Example], list[Example]]:
    """The context, and one query of every class."""
    by_label: dict[str, list[Example]] = {}
    for one in examples.examples:
        if one.label is not None:
            by_label.setdefault(one.label, []).append(one)
    labels = sorted(by_label)
    if ways is not None and ways > len(labels):
        raise InputError(f"generate: wanted at most {len(labels)} ways of {examples.name}; got {ways}")
    labels = sorted(shuffled(labels, seed, str)[:ways])
    few = [label for label in labels if len(by_label[label]) <= shots]
    if few or not labels:
        raise InputError(
            f"generate: wanted {shots + 1} images of every class of {examples.name}, {shots} for the context and one "
            f"as the target; {', '.join(few[:3]) or 'no image'} has fewer: take fewer shots"
        )
    chosen = {label: shuffled(by_label[label], seed, _key)[: shots + 1] for label in labels}
    context = [one for label in labels for one in chosen[label][:shots]]
    return shuffled(context, seed, _key), [chosen[label][shots] for label in labels]


def _captioned(
    examples: ExampleSet, shots: int, queries: int, seed: int
) -> tuple[list[Example], list[Example]]:
    of_images = {one.image_key: one for one in examples.examples if one.captions}
    if len(of_images) < shots + queries:
        raise InputError(
            f"generate: wanted {shots} captioned images as context and {queries} as queries; {examples.name} has "
            f"{len(of_images)}: take fewer"
        )
    chosen = shuffled(list(of_images.values()), seed, _key)
    return chosen[:shots], chosen[shots : shots + queries]


def _sum(digit: str, seed: int, id_: str) -> str:
    """Two numbers that make the digit, neither of them 0 where that is possible."""
    whole = int(digit)
    first = 1 + number(seed, f"sum {id_}") % (whole - 1) if whole > 1 else whole
    return f"{first}+{whole - first}"


def _key(one: Example) -> str:
    return one.key
