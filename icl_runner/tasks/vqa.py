"""Questions about images given by their words, after a few examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from icl_runner import prompts, scoring
from icl_runner.data.examples import Example
from icl_runner.tasks import Call, Item

MAX_TOKENS = 12


def items(
    support: Sequence[Example],
    queries: Sequence[Example],
    others: Sequence[str],
    words: Mapping[str, str],
    *,
    control: bool = True,
) -> tuple[Item, ...]:
    """The calls for every query: "answer", and "answer_other": the same question about another image's words.

    Args:
        support: the examples in context, the same for all queries; of each the answer that most people gave.
        others: of each query, the image key whose words take the place of its own in the control.
        words: image key -> its words.
    """
    examples = [(words[one.image_key], _question(one), most_said(one.answers)) for one in support]
    made = []
    for query, other in zip(queries, others, strict=True):
        keys = [("answer", query.image_key), ("answer_other", other)][: 1 + control]
        calls = tuple(
            Call(key, prompts.vqa(examples, words[image], _question(query)), MAX_TOKENS)
            for key, image in keys
        )
        shown = {
            "question": _question(query),
            "humans": list(query.answers),
            "words": words[query.image_key],
            "query_key": query.image_key,
            "other_key": other,
        }
        made.append(Item(query.key, calls, most_said(query.answers), shown))
    return tuple(made)


def score(shown: Mapping[str, Any], answers: Mapping[str, str]) -> tuple[dict[str, float], dict[str, Any]]:
    """The VQA accuracy and exact match of every answer."""
    values: dict[str, float] = {}
    for key, answer in answers.items():
        suffix = key.removeprefix("answer")
        said = scoring.finished(answer, prompts.STOP)
        values[f"vqa{suffix}"] = scoring.vqa_accuracy(said, shown["humans"])
        values[f"exact{suffix}"] = float(scoring.vqa_exact(said, shown["humans"]))
    metadata = {
        "answers": dict(answers),
        "question": shown["question"],
        "truth": most_said(shown["humans"]),
        "humans": shown["humans"],
        "words": shown["words"],
        "query_key": shown["query_key"],
    }
    return values, metadata


def most_said(answers: Sequence[str]) -> str:
    """The answer that most people gave; of equals the first."""
    return Counter(answers).most_common(1)[0][0]


def _question(example: Example) -> str:
    """As one line: a line break would end it."""
    return " ".join((example.question or "").split())
