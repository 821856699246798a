"""What a model is asked about a few-shot episode: calls, by the rules that score their answers."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from icl_runner import prompts
from icl_runner.cells import Call, Item
from icl_runner.data.images import NO_IMAGE
from icl_runner.dice import Dice
from icl_runner.episodes.draw import Episode, Shot
from icl_runner.figures import BLIND, OTHER
from icl_runner.texts import choosing
from spae.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked about every episode.

    Args:
        constrains: whether the model's decoding can be restricted. Chat models are told the names instead, and what
            they answer is called "instructed", a column of its own.
        rules: "open" for the open-ended rule, "constrained" for decoding restricted to the names; either or both.
        control: everything again, as ".._other", with the words of the episode's other image as the query.
        blind: everything again, as ".._blind", without the query's image.
        content_free: how many content-free prompts ask for the likelihoods of the names; 0: no calibration.
        neutral: images of whose words content-free prompts are made; those of an episode's classes, and its own
            images, are left out there.
        orders: in how many orders of the examples the likelihoods are asked for; 1: only as they stand.
    """

    constrains: bool
    rules: Collection[str] = ("open", "constrained")
    control: bool = True
    blind: bool = False
    content_free: int = 0
    neutral: Sequence[Shot] = ()
    orders: int = 1

    @property
    def likelihoods(self) -> bool:
        """Whether likelihoods of the names are asked for."""
        return self.content_free > 0 or self.orders > 1


def items(episodes: Sequence[Episode], words: Mapping[str, str], asked: Asked) -> tuple[Item, ...]:
    """The calls of every episode.

    Args:
        words: image key -> its words, of all images of the episodes (and of their controls: NO_IMAGE, too, if blind).

    Raises:
        InputError: no image is left for content-free prompts.
    """
    # One length for all, because calls with equal settings can be answered side by side.
    length = choosing.max_tokens([name for episode in episodes for name in episode.names.values()])
    return tuple(_item(episode, words, length, asked) for episode in episodes)


def _item(episode: Episode, words: Mapping[str, str], length: int, asked: Asked) -> Item:
    names = tuple(episode.names.values())
    queries = [("", words[episode.query.key])]
    if asked.control:
        queries.append((OTHER.suffix, words[episode.other]))
    if asked.blind:
        queries.append((BLIND.suffix, words[NO_IMAGE]))
    calls = [
        call
        for suffix, seen in queries
        for call in _answers(suffix, _prompt(episode, words, seen), length, names, asked)
    ]
    if asked.likelihoods:
        calls += _likelihoods(episode, words, queries, length, asked)
    truth = episode.names[episode.query.label]
    shown = {
        "names": list(names),
        "truth": truth,
        "words": words[episode.query.key],
        "query_key": episode.query.key,
        "other_key": episode.other,
    }
    return Item(episode.id, tuple(calls), truth, shown)


def _answers(
    suffix: str, prompt: prompts.Prompt, length: int, names: tuple[str, ...], asked: Asked
) -> Iterator[Call]:
    """The calls that are answered in words."""
    if "open" in asked.rules:
        yield Call(f"open{suffix}", prompt, length)
    if "constrained" in asked.rules:
        yield choosing.choice(prompt, names, length, asked.constrains, suffix)


def _likelihoods(
    episode: Episode,
    words: Mapping[str, str],
    queries: Sequence[tuple[str, str]],
    length: int,
    asked: Asked,
) -> Iterator[Call]:
    """The calls that ask how likely each name is; those of one context follow each other."""
    names = tuple(episode.names.values())

    def call(key: str, seen: str, support: Sequence[Shot]) -> Call:
        return choosing.likelihood(key, _prompt(episode, words, seen, support), names, length)

    for number, support in enumerate(orders(episode.support, asked.orders, Dice("orders", episode.id)), 1):
        for suffix, seen in queries:
            key = f"{choosing.ORDER}{number}" if number > 1 else choosing.LIKELIEST
            yield call(f"{key}{suffix}", seen, support)
        if number == 1:
            for one in range(asked.content_free):
                yield call(f"{choosing.CONTENT_FREE}{one + 1}", _neutral(episode, words, asked, one), support)


def _prompt(
    episode: Episode, words: Mapping[str, str], seen: str, support: Sequence[Shot] = ()
) -> prompts.Prompt:
    """The question what `seen` are the words of, behind the examples in this order (the episode's by default)."""
    names = tuple(episode.names.values())
    examples = [(words[shot.key], episode.names[shot.label]) for shot in support or episode.support]
    return prompts.classify(names, examples, seen, induction=episode.induction, repeats=episode.repeats)


def orders(examples: Sequence[T], count: int, dice: Dice) -> list[list[T]]:
    """The examples in `count` different orders (in all there are, if these are fewer), first as they come."""
    places = [list(range(len(examples)))]
    tries = 0
    while len(places) < min(count, math.factorial(len(examples))):
        drawn = dice.choose(f"order {tries}", places[0], len(examples))
        places += [drawn] if drawn not in places else []
        tries += 1
    return [[examples[place] for place in order] for order in places]


def _neutral(episode: Episode, words: Mapping[str, str], asked: Asked, number: int) -> str:
    """As many words as the query has, each of another image and at the place that it has there: of no image.

    The images are of no class of the episode where there are such.
    """
    own = {episode.query.key, episode.other, *(shot.key for shot in episode.support)}
    left = [shot for shot in asked.neutral if shot.key not in own]
    left = [shot for shot in left if shot.label not in episode.names] or left
    if not left:
        raise InputError(
            f"episode {episode.id}: wanted images besides its own for content-free prompts, and none is left: give "
            "more images, or leave --content-free out"
        )
    count = len(words[episode.query.key].split())
    images = Dice("content-free", episode.id).choose(f"images {number}", left, min(count, len(left)))
    seen = [words[images[place % len(images)].key].split() for place in range(count)]
    return " ".join(one[min(place, len(one) - 1)] for place, one in enumerate(seen))
