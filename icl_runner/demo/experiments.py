"""The demonstration's experiments: episodes, captions and pictures, of the shipped photographs alone.

The prompts, the rules of scoring and the plan of decoding are those of the runner; the embedded model is asked
directly. For measurements use `spae-icl run`: these are few images, and they share their contexts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import UInt8

from icl_runner import prompts, scoring
from icl_runner.cells import EMBEDDED, Call
from icl_runner.constraints import spaced
from icl_runner.data.examples import Example
from icl_runner.episodes import calls
from icl_runner.episodes.draw import Episode, Shot
from icl_runner.pictures.comparison import random_words
from icl_runner.pictures.progressive import Pair, flat_words, make_plan, prompt_for
from icl_runner.tasks.caption import Caption
from icl_runner.tasks.classify import Classify
from spae.frozen_lm import FrozenLM
from spae.frozen_lm.constraint import Constraint, Trie
from spae.metrics import psnr
from spae.tokenizer import Tokenizer

# Of the shipped photographs, those that share a kind; in the order of the table in their README.
KINDS = {
    "animal": ("dogs.jpg", "raccoon.jpg", "cat.jpg"),
    "landscape": ("mountains.jpg", "autumn.jpg", "stream.jpg", "sunset.jpg"),
}
CAPTION_TOKENS = 12
SIDE_BY_SIDE = 20  # calls: those of the five questions of one context

# Pictures of one colour, drawn here; RGB in 0 .. 255.
COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 200), "white": (230, 230, 230)}
SHADE = 25  # by which each channel differs from these, at most
COLOUR_SHOTS = 4
LAYERS = 4  # 85 words
CONTRAST = 1.0  # how much the words of one column are drawn to their own condition


def episodes(keys: Sequence[str]) -> list[Episode]:
    """Every 2-way 1-shot episode of `KINDS`: each animal beside each landscape, then each of the others asked.

    Args:
        keys: of all photographs; those of neither kind are the controls, in turn.
    """
    outside = [key for key in keys if not any(key in of_kind for of_kind in KINDS.values())]
    names = {kind: kind for kind in KINDS}
    made: list[Episode] = []
    for animal in KINDS["animal"]:
        for landscape in KINDS["landscape"]:
            support = (Shot(animal, "animal"), Shot(landscape, "landscape"))
            for kind, of_kind in KINDS.items():
                for key in of_kind:
                    if key not in (animal, landscape):
                        id_ = f"{animal}-{landscape}-{key}"
                        other = outside[len(made) % len(outside)]
                        made.append(Episode(id_, names, support, Shot(key, kind), other))
    return made


@dataclass(frozen=True)
class Answered:
    """An episode with the model's answers and their scores, by the keys of the logs: "open", "open_other", .."""

    episode: Episode
    prompt: prompts.Prompt
    answers: Mapping[str, str]
    values: Mapping[str, float]


def classified(lm: FrozenLM, asked: Sequence[Episode], words: Mapping[str, str]) -> list[Answered]:
    """The answers to `asked`, under both rules, with the control of each.

    Args:
        words: key -> its words, of all images of the episodes.
    """
    items = calls.items(asked, words, calls.Asked(constrains=True))
    answers = answer(lm, [call for item in items for call in item.calls])
    found = []
    for episode, item in zip(asked, items, strict=True):
        by_key = {call.key: answers.pop(0) for call in item.calls}
        found.append(Answered(episode, item.calls[0].prompt, by_key, Classify.score(item.shown, by_key)[0]))
    return found


def answer(lm: FrozenLM, calls: Sequence[Call]) -> list[str]:
    """The model's greedy answers, held to the choices of a call that has some.

    Calls with equal settings that follow each other are answered side by side.
    """
    texts: dict[int, str] = {}
    order = sorted(
        range(len(calls)), key=lambda i: (i // SIDE_BY_SIDE, calls[i].max_tokens, calls[i].choices)
    )
    for (_, most, choices), group in groupby(
        order, key=lambda i: (i // SIDE_BY_SIDE, calls[i].max_tokens, calls[i].choices)
    ):
        indices = list(group)
        asked = [calls[i].prompt for i in indices]
        constraints = [
            Trie([spaced(prompt.text, text) for text in choices], lm.tokenizer) if choices else None
            for prompt in asked
        ]
        stop = () if choices else asked[0].stop
        generations = lm.generate(
            [lm.encode(prompt.text) for prompt in asked], most, stop=stop, constraints=constraints
        )
        texts |= {i: one.text for i, one in zip(indices, generations, strict=True)}
    return [texts[i] for i in range(len(calls))]


@dataclass(frozen=True)
class Captions:
    """`written`: key -> caption. `matched`: how many true captions are likelier behind the words of their own image
    than behind those of any other that was asked about with the same context; `among`: how many images those are."""

    written: Mapping[str, str]
    matched: int
    among: int


def captioned(lm: FrozenLM, examples: Sequence[Example], words: Mapping[str, str]) -> Captions:
    """A caption of every photograph: every second one is in context when the rest is asked, then the other way."""
    task = Caption(model=f"{EMBEDDED}{lm.name}", control=False)
    written: dict[str, str] = {}
    matched = 0
    for turn in (0, 1):
        support, asked = examples[1 - turn :: 2], examples[turn::2]
        items = task.items(support, asked, [""] * len(asked), words, {})
        calls = [item.calls[0] for item in items]
        contexts = [lm.encode(call.prompt.text) for call in calls]
        generations = lm.generate(contexts, CAPTION_TOKENS, stop=prompts.STOP)
        for one, generation in zip(asked, generations, strict=True):
            written[one.image_key] = scoring.finished(generation.text, prompts.STOP)
        truths = [lm.tokenizer.encode(f" {one.captions[0]}\n") for one in asked]
        # Row: whose words; column: whose caption.
        scores = np.array([[one.sum() for one in lm.score(context, truths)] for context in contexts])
        matched += int((scores.argmax(0) == np.arange(len(asked))).sum())
    return Captions(written, matched, len(examples) // 2)


@dataclass(frozen=True, eq=False)
class Painting:
    """A picture of one colour, written in words by the model.

    Args:
        pictures: what it was to be ("target", a shade that no example has), what the target's own words decode to
            ("oracle"), what the model wrote greedily ("greedy") and choosing words by contrast ("contrast"), and
            random words ("random"); each uint8 (S, S, 3).
        right: of each whether the nearest target is its own.
    """

    condition: str
    pictures: Mapping[str, UInt8[np.ndarray, "s s 3"]]
    words: Mapping[str, tuple[str, ...]]
    right: Mapping[str, bool]


def painted(
    lm: FrozenLM, tokenizer: Tokenizer, progress: Callable[[str], None] = lambda line: None
) -> tuple[list[Painting], prompts.Prompt]:
    """Pictures of all colours, in context; and one prompt of theirs.

    Every one of the 85 words is asked for by itself (non-autoregressive), after `COLOUR_SHOTS` pictures of each
    colour in other shades, words only of the bundle's vocabulary. "greedy" is that; in "contrast" words are drawn to
    what their own condition makes likelier than the other conditions do (`spae.frozen_lm.writing.contrasted`).
    """
    rng = np.random.default_rng(0)

    def draw(colour: str) -> np.ndarray:
        shade = np.clip(np.add(COLOURS[colour], rng.integers(-SHADE, SHADE + 1, 3)), 0, 255)
        return np.broadcast_to(shade.astype(np.uint8), (tokenizer.image_size, tokenizer.image_size, 3))

    colours = [colour for _ in range(COLOUR_SHOTS) for colour in rng.permutation(list(COLOURS)).tolist()]
    shown, targets = [draw(colour) for colour in colours], [draw(colour) for colour in COLOURS]
    encoded = [flat_words(one, LAYERS) for one in tokenizer.encode([*shown, *targets])]
    pairs = [Pair(_told(colour), one) for colour, one in zip(colours, encoded, strict=False)]

    written: dict[str, list[list[str]]] = {how: [[] for _ in COLOURS] for how in ("greedy", "contrast")}
    plan = make_plan(tokenizer.shape, LAYERS, autoregressive=0, words=1)
    constraint = lm.writable(tokenizer.vocabulary.words).constraint(1)
    for segment in plan.segments:
        asked = [prompt_for(segment, pairs, _told(colour), (), prompts.generate) for colour in COLOURS]
        for how, next_words in _next_words(lm, constraint, asked).items():
            for of_picture, word in zip(written[how], next_words, strict=True):
                of_picture.append(word)
        if segment.stop in (tokenizer.shape.tokens(layer) for layer in range(1, LAYERS + 1)):
            progress(f"{segment.stop} of {len(plan.segments)} words of {len(COLOURS)} pictures written")
    chance = random_words(tokenizer.shape, LAYERS, tokenizer.vocabulary, seed=0)
    words: dict[str, Sequence[Sequence[str]]] = {
        "oracle": encoded[len(colours) :],
        **written,
        "random": [flat_words(chance, LAYERS)] * len(COLOURS),
    }
    decoded = {
        how: tokenizer.decode([" ".join(one) for one in of_how], LAYERS) for how, of_how in words.items()
    }
    nearest = {how: _nearest(images, np.stack(targets)) for how, images in decoded.items()}
    paintings = [
        Painting(
            _told(colour),
            {"target": targets[i], **{how: images[i] for how, images in decoded.items()}},
            {how: tuple(of_how[i]) for how, of_how in words.items()},
            {how: bool(found[i] == i) for how, found in nearest.items()},
        )
        for i, colour in enumerate(COLOURS)
    ]
    return paintings, asked[0]


def _told(colour: str) -> str:
    return f"an image of {colour}"


def _next_words(
    lm: FrozenLM, constraint: Constraint, asked: Sequence[prompts.Prompt]
) -> dict[str, list[str]]:
    """The word behind every prompt, greedily and by contrast with the other prompts."""
    contexts = [lm.encode(one.text) for one in asked]
    others = [[other for other in contexts if other is not own] for own in contexts]

    def words(against: Sequence[Sequence[list[int]]] | None) -> list[str]:
        held = [constraint] * len(contexts)
        found = lm.generate(contexts, 1, constraints=held, against=against, contrast=CONTRAST)
        return [one.text.strip() for one in found]

    return {"greedy": words(None), "contrast": words(others)}


def _nearest(images: UInt8[np.ndarray, "n s s 3"], targets: UInt8[np.ndarray, "n s s 3"]) -> list[int]:
    """Of each image the target of the highest PSNR."""
    return [int(psnr(np.broadcast_to(image, targets.shape), targets).argmax()) for image in images]
