"""Few-shot classification of images by their words: which of the named classes is the query's?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from icl_runner import chat_answers, prompts, scoring
from icl_runner.episodes import Episode
from icl_runner.tasks import Call, Item


def items(
    episodes: Sequence[Episode],
    words: Mapping[str, str],
    *,
    constrains: bool,
    control: bool = True,
) -> tuple[Item, ...]:
    """The calls of every episode.

    "open" is for the open-ended rule, "constrained" for decoding restricted to the names. Chat models cannot be
    restricted: they are told the names instead, and what they answer is called "instructed", a column of its own.
    With `control` each is asked again, as ".._other", with the words of the episode's other image as the query.

    Args:
        words: image key -> its words, of all images of the episodes (and of their controls).
        constrains: whether the model's decoding can be restricted.
    """
    # One length for all, because calls with equal settings can be answered side by side.
    length = max_tokens([name for episode in episodes for name in episode.names.values()])
    return tuple(_item(episode, words, length, constrains, control) for episode in episodes)


def _item(episode: Episode, words: Mapping[str, str], length: int, constrains: bool, control: bool) -> Item:
    names = tuple(episode.names.values())
    examples = [(words[shot.key], episode.names[shot.label]) for shot in episode.support]
    calls = []
    for suffix, key in [("", episode.query.key), ("_other", episode.other)][: 1 + control]:
        prompt = prompts.classify(
            names, examples, words[key], induction=episode.induction, repeats=episode.repeats
        )
        calls.append(Call(f"open{suffix}", prompt, length))
        if constrains:
            calls.append(Call(f"constrained{suffix}", prompt, length, names))
        else:
            calls.append(
                Call(f"instructed{suffix}", prompt, length, names, system=prompts.chat_choice(names))
            )
    truth = episode.names[episode.query.label]
    shown = {
        "names": list(names),
        "truth": truth,
        "words": words[episode.query.key],
        "query_key": episode.query.key,
        "other_key": episode.other,
    }
    return Item(episode.id, tuple(calls), truth, shown)


def max_tokens(names: Sequence[str]) -> int:
    """Room for the longest name and for what shows that an answer goes on.

    A token of Latin letters has two or more, mostly; digits may have a token each, other scripts one for each byte.
    """

    def most(name: str) -> float:
        halves = (char.isascii() and not char.isdigit() for char in name)
        return sum(0.5 if half else len(char.encode()) for char, half in zip(name, halves, strict=True))

    return int(max(map(most, names))) + 4


def score(shown: Mapping[str, Any], answers: Mapping[str, str]) -> tuple[dict[str, float], dict[str, Any]]:
    """1 or 0 for every answer, by the rule of its key; the control's answers against the same truth."""
    truth, names = shown["truth"], shown["names"]
    rules: dict[str, Callable[[str], bool]] = {
        "open": lambda answer: scoring.open_match(answer, truth, prompts.STOP),
        "constrained": lambda answer: scoring.chosen(answer, names) == truth,
        "instructed": lambda answer: chat_answers.given(answer, names) == truth,
    }
    values = {key: float(rules[key.partition("_")[0]](answer)) for key, answer in answers.items()}
    metadata = {key: shown[key] for key in ("truth", "words", "query_key")}
    return values, {"answers": dict(answers), **metadata}
