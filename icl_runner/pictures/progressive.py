"""Progressive in-context decoding: the words of a picture are written in segments, one model call each.

SPAE paper (arXiv 2306.17842), section 3.2, as far as it is known: the words of the target are cut into
segments. Autoregressive (AR) segments are each conditioned on all words before them: right for the few words of
the upper layers. Non-autoregressive (NAR) segments are written independently of each other: right for the
grids, which are long and would not fit with their context. The rest is our choice, stated here:

- a segment lies in one layer; AR layers come first, NAR layers after them;
- a NAR segment is conditioned on the words of all AR layers, and on no other NAR segment;
- the examples in context show, for a segment, what the query shows and asks for and nothing else: the words it
  is conditioned on, then its own slice. Conditions that are images in words are cut in the same way.

This file knows no language model: `decode` is given a function that asks one.
"""

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import anyio
import numpy as np

from icl_runner.prompts import Prompt
from spae.errors import InputError
from spae.pyramid import Pyramid, PyramidShape
from spae.text import parse
from spae.vocabulary import Vocabulary

Item = TypeVar("Item")

# Pairs (condition, answer) in the order of the prompt, the query's condition, and the words of its answer that
# are there already ("" at first) -> the prompt whose continuation is the next words.
WritePrompt = Callable[[Sequence[tuple[str, str]], str, str], Prompt]


@dataclass(frozen=True)
class Answer:
    """What a model wrote; `log_prob`: mean log-probability of its tokens, None if the model gives none."""

    text: str
    log_prob: float | None = None


# (prompt, prompts that the answer is to tell itself apart from, number of words wanted, seed) -> the answer.
Ask = Callable[[Prompt, Sequence[Prompt], int, int], Awaitable[Answer]]

# (prompt, texts) -> the log-probability of each text behind the prompt.
Weigh = Callable[[Prompt, Sequence[str]], Awaitable[list[float]]]


@dataclass(frozen=True)
class Segment:
    """Words `start` .. `stop` - 1 of the flat word sequence, all of layer `layer` (counted from 1), written
    after the first `given` words of it: `given == start` is AR, less is NAR."""

    layer: int
    start: int
    stop: int
    given: int

    @property
    def count(self) -> int:
        """How many words it has."""
        return self.stop - self.start

    def shown(self, words: Sequence[Item]) -> list[Item]:
        """Of a whole picture's flat words, those that an example in context shows: given, then own."""
        return [*words[: self.given], *words[self.start : self.stop]]


@dataclass(frozen=True)
class SegmentPlan:
    """Segments that cover the first `layers` layers once each, in order."""

    shape: PyramidShape
    layers: int
    autoregressive: int
    segments: tuple[Segment, ...]

    @property
    def waves(self) -> tuple[tuple[Segment, ...], ...]:
        """Segments that are asked for together; each wave needs the words of the waves before it."""
        single = [(segment,) for segment in self.segments if segment.layer <= self.autoregressive]
        together = tuple(segment for segment in self.segments if segment.layer > self.autoregressive)
        return (*single, together) if together else tuple(single)


def make_plan(
    shape: PyramidShape, layers: int, autoregressive: int | None = None, words: int | Sequence[int] = 16
) -> SegmentPlan:
    """The plan for the first `layers` layers of a pyramid, the first `autoregressive` of them AR, the rest NAR.

    Args:
        autoregressive: all `layers` by default.
        words: how many words a segment has at most, one number or one for each layer; a layer's last segment is shorter
            when they do not divide it.

    Raises:
        InputError: layers that the pyramid does not have, or segments without words.
    """
    layers = shape.check_layers(layers)
    autoregressive = layers if autoregressive is None else autoregressive
    if not 0 <= autoregressive <= layers:
        raise InputError(
            f"progressive decoding: wanted 0 to {layers} autoregressive layers of {layers}; got {autoregressive}"
        )
    longest = [words] * layers if isinstance(words, int) else list(words)
    if len(longest) != layers or min(longest) < 1:
        raise InputError(
            "progressive decoding: wanted the words of a segment as one number from 1, or one for each of "
            f"{layers} layers; got {words}"
        )
    segments = []
    before_grids = shape.tokens(autoregressive) if autoregressive else 0
    first = 0
    for layer, step in enumerate(longest, start=1):
        end = shape.tokens(layer)
        for start in range(first, end, step):
            given = start if layer <= autoregressive else before_grids
            segments.append(Segment(layer, start, min(start + step, end), given))
        first = end
    return SegmentPlan(shape, layers, autoregressive, tuple(segments))


@dataclass(frozen=True)
class Pair:
    """An example in context: a condition (a text, or the flat words of an image) and the picture's flat words; and what
    the picture shows, where that has a name."""

    condition: str | tuple[str, ...]
    words: tuple[str, ...]
    label: str | None = None


def prompt_for(
    segment: Segment,
    pairs: Sequence[Pair],
    condition: str | tuple[str, ...],
    words: Sequence[str],
    write: WritePrompt,
) -> Prompt:
    """The prompt that asks for a segment; `words`: the picture's words so far, at least `segment.given`."""
    examples = [(_shown(segment, pair.condition), " ".join(segment.shown(pair.words))) for pair in pairs]
    return write(examples, _shown(segment, condition), " ".join(words[: segment.given]))


def other_prompts(
    segment: Segment,
    pairs: Sequence[Pair],
    conditions: Sequence[str | tuple[str, ...]],
    own: Prompt,
    words: Sequence[str],
    write: WritePrompt,
) -> tuple[Prompt, ...]:
    """The prompts that ask for a segment under other conditions than `own` does. Of images a segment shows a part, in
    which several may be alike: each prompt once, and not `own` again."""
    prompts = dict.fromkeys(prompt_for(segment, pairs, one, words, write) for one in conditions)
    prompts.pop(own, None)
    return tuple(prompts)


def _shown(segment: Segment, condition: str | tuple[str, ...]) -> str:
    return condition if isinstance(condition, str) else " ".join(segment.shown(condition))


def max_tokens(count: int) -> int:
    """Room for an answer of `count` words: one token a word for the vocabulary's own model, up to three for others."""
    return 3 * count + 8


def approximate_tokens(text: str) -> int:
    """Tokens of a prompt: one for each word, number, sign and line break. Exact for the words of a vocabulary in its
    own model, near for the rest."""
    return len(re.findall(r"\w+|[^\w\s]|\n", text))


def check_fits(
    plan: SegmentPlan,
    pairs: Sequence[Pair],
    condition: str | tuple[str, ...],
    write: WritePrompt,
    count_tokens: Callable[[str], int],
    context_tokens: int,
) -> int:
    """The most tokens that a call of this plan takes, prompt and room for the answer (`max_tokens`) together.

    Raises:
        InputError: that is more than the model's `context_tokens`; the message says how many examples fit.
    """

    def needed(examples: int) -> int:
        # The query's own words are not known yet; any words of the vocabulary are as long.
        shown = pairs[:examples]
        return max(
            count_tokens(prompt_for(part, shown, condition, pairs[0].words, write).text)
            + max_tokens(part.count)
            for part in plan.segments
        )

    if not pairs:
        raise InputError("progressive decoding: wanted at least one example in context; got none")
    most = needed(len(pairs))
    if most <= context_tokens:
        return most
    fit, too_many = 0, len(pairs)
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        fit, too_many = (middle, too_many) if needed(middle) <= context_tokens else (fit, middle)
    advice = f"{fit} examples fit" if fit else "not even one example fits"
    raise InputError(
        f"progressive decoding: wanted prompts of at most {context_tokens:,} tokens; {len(pairs)} examples in "
        f"context take up to {most:,}, {advice}: take fewer examples, fewer layers, or shorter segments"
    )


@dataclass(frozen=True)
class Decoded:
    """A picture in words.

    Args:
        words: the flat words, complete.
        repairs: how many repairs of each kind (`spae.text.Repair`) the answers took, "missing" being words that no
            answer held.
        failures: the segments whose call failed, with what it raised. After a failed AR segment nothing more is asked
            for; the words are filled in either case.
    """

    words: tuple[str, ...]
    repairs: Mapping[str, int]
    failures: tuple[tuple[Segment, Exception], ...]


async def decode(
    plan: SegmentPlan,
    pairs: Sequence[Pair],
    condition: str | tuple[str, ...],
    write: WritePrompt,
    ask: Ask,
    vocabulary: Vocabulary,
    *,
    samples: int = 1,
    seed: int = 0,
    contrasted: Sequence[str | tuple[str, ...]] = (),
    weigh: Weigh | None = None,
    others: Sequence[str | tuple[str, ...]] = (),
) -> Decoded:
    """The words of a picture, asked for segment by segment; the segments of a wave at the same time.

    Of each segment `samples` answers with different seeds are asked for, and one is taken: of those with the fewest
    repairs (none, where decoding is held to the vocabulary) the likeliest, by the mean log-probability of its tokens;
    the first, where the model gives none. With `weigh` not the likeliest, but the one that agrees most with its
    condition (`agreement`), weighed against `others`. Words that an answer lacks are filled with the word above
    them, and counted.

    With conditions `contrasted`, `ask` gets the prompts that would ask for the same words under these.

    What a call raises ends up in `Decoded.failures`, so that the words of the others are not lost: the caller
    decides.
    """
    if samples < 1:
        raise InputError(f"progressive decoding: wanted at least 1 sample a segment; got {samples}")
    words: list[str | None] = [None] * plan.shape.tokens(plan.layers)
    repairs: Counter[str] = Counter()
    failures: list[tuple[Segment, Exception]] = []

    async def write_segment(segment: Segment, index: int) -> None:
        given = complete(words[: segment.given], plan.shape, vocabulary)
        prompt = prompt_for(segment, pairs, condition, given, write)
        first = seed + index * samples
        against = other_prompts(segment, pairs, contrasted, prompt, given, write)
        answers, errors = await _sample(ask, prompt, against, segment.count, range(first, first + samples))
        behind = other_prompts(segment, pairs, others, prompt, given, write) if weigh is not None else ()
        if weigh is not None and behind and len(answers) > 1:
            try:
                answers = await agreement(answers, [prompt, *behind], weigh)
            except Exception as error:  # kept, as that of a call for words
                errors.append(error)
        failures.extend((segment, error) for error in errors)
        if answers:
            words[segment.start : segment.stop], counted = choose(answers, segment.count, vocabulary)
            repairs.update(counted)

    for wave in plan.waves:
        async with anyio.create_task_group() as group:
            for segment in wave:
                group.start_soon(write_segment, segment, plan.segments.index(segment))
        if failures:
            break
    repairs["missing"] += words.count(None)
    filled = tuple(complete(words, plan.shape, vocabulary))
    return Decoded(filled, {kind: count for kind, count in sorted(repairs.items()) if count}, tuple(failures))


async def _sample(
    ask: Ask, prompt: Prompt, against: Sequence[Prompt], count: int, seeds: Sequence[int]
) -> tuple[list[Answer], list[Exception]]:
    """An answer for each seed, in their order, asked for at the same time; and what was raised in place of others."""
    found = await _together([partial(ask, prompt, against, count, seed) for seed in seeds])
    errors = [one for one in found if isinstance(one, Exception)]  # raised by whoever called `decode`
    return [one for one in found if not isinstance(one, Exception)], errors


async def _together(calls: Sequence[Callable[[], Awaitable[Item]]]) -> list[Item | Exception]:
    """What each returned or raised, in their order; called at the same time."""
    found: dict[int, Item | Exception] = {}

    async def one(number: int) -> None:
        try:
            found[number] = await calls[number]()
        except Exception as error:
            found[number] = error

    async with anyio.create_task_group() as group:
        for number in range(len(calls)):
            group.start_soon(one, number)
    return [found[number] for number in range(len(calls))]


async def agreement(answers: Sequence[Answer], prompts: Sequence[Prompt], weigh: Weigh) -> list[Answer]:
    """The answers, each with the log of how much likelier it is behind the first prompt than behind all of them on
    average, in place of its log-probability. What is likely whatever the condition thereby counts nothing.

    (Li et al., "Contrastive decoding", arXiv 2210.15097, with other conditions in place of the weaker model.)
    """
    texts = list(dict.fromkeys(answer.text.strip() for answer in answers if answer.text.strip()))
    if not texts:
        return list(answers)
    found = await _together([partial(weigh, prompt, texts) for prompt in prompts])
    for one in found:
        if isinstance(one, Exception):
            raise one
    log_p = np.array(found)  # row: prompt; column: text
    weights = log_p[0] - np.logaddexp.reduce(log_p, axis=0) + np.log(len(prompts))
    by_text = dict(zip(texts, weights.tolist(), strict=True))
    return [replace(answer, log_prob=by_text.get(answer.text.strip())) for answer in answers]


def choose(
    answers: Sequence[Answer], count: int, vocabulary: Vocabulary
) -> tuple[list[str | None], Counter[str]]:
    """The words of the best answer (None where it lacks one) and its repairs by kind; see `decode`.

    The best lacks the fewest words (missing or unknown), then has the fewest other repairs, then is the likeliest.
    """
    read = [read_words(answer.text, count, vocabulary) for answer in answers]

    def cost(number: int) -> tuple[int, int, float]:
        words, repairs = read[number]
        log_prob = answers[number].log_prob
        # A refusal may well be likelier than any words, and words with commas say more than none.
        lacking = words.count(None) + repairs["unknown"]
        return lacking, repairs.total() - repairs["unknown"], math.inf if log_prob is None else -log_prob

    return read[min(range(len(answers)), key=cost)]


def read_words(text: str, count: int, vocabulary: Vocabulary) -> tuple[list[str | None], Counter[str]]:
    """`count` words from a model's answer, None for those it lacks, and the repairs by kind without "missing".

    The parser of `spae.text` reads it, as one row of words; so a word that is near no word of the vocabulary
    becomes the first of the answer that is. An answer without any word of the vocabulary is
    `count` times None. White space around the words is no fault: a text goes on behind a space.
    """
    try:
        parsed = parse(text.strip(), vocabulary, PyramidShape(((1, count),)))
    except InputError:  # nothing in it is a word of the vocabulary: the only thing parse refuses here
        return [None] * count, Counter()
    words: list[str | None] = list(parsed.pyramid.words()[0])
    for repair in parsed.repairs:
        if repair.kind == "missing":
            words[repair.position] = None
    return words, Counter(repair.kind for repair in parsed.repairs if repair.kind != "missing")


def complete(words: Sequence[str | None], shape: PyramidShape, vocabulary: Vocabulary) -> list[str]:
    """The first flat words of a pyramid with every None replaced by the word above it, as `spae.text.parse` does.

    At the top by the first word that is there; without any, by the vocabulary's first, which is its most
    frequent.
    """
    first = next((word for word in words if word is not None), vocabulary.words[0])
    filled: list[str] = []
    for word, above in zip(words, shape.above.tolist(), strict=False):
        filled.append(word if word is not None else first if above < 0 else filled[above])
    return filled


def to_pyramid(words: Sequence[str], layers: int, shape: PyramidShape, vocabulary: Vocabulary) -> Pyramid:
    """Flat words of the vocabulary, exactly those of `layers` layers, as a pyramid. Else `InputError`."""
    wanted = shape.tokens(layers)
    unknown = [word for word in words if word not in vocabulary.index]
    if len(words) != wanted or unknown:
        raise InputError(
            f"pyramid: wanted {wanted} words of the vocabulary; got {len(words)}, {len(unknown)} of them unknown"
        )
    return Pyramid.from_ids([vocabulary.index[word] for word in words], shape, vocabulary)


def flat_words(pyramid: Pyramid, layers: int) -> tuple[str, ...]:
    """The words of the first layers of a pyramid, in the order of `spae.text.render`."""
    return tuple(word for layer in pyramid.words(layers) for word in layer)
