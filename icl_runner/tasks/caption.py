"""Captions of images by their words, after a few examples."""

from collections.abc import Mapping, Sequence
from typing import Any

from icl_runner import prompts, scoring
from icl_runner.data.examples import Example
from icl_runner.tasks import Call, Item

MAX_TOKENS = 40


def items(
    support: Sequence[Example],
    queries: Sequence[Example],
    others: Sequence[str],
    words: Mapping[str, str],
    *,
    control: bool = True,
) -> tuple[Item, ...]:
    """The calls for every query: "caption", and "caption_other" with another image's words.

    Args:
        support: the examples in context, the same for all queries; the first caption of each is shown.
        others: of each query, the image key whose words take the place of its own in the control.
        words: image key -> its words.
    """
    examples = [(words[one.image_key], _line(one.captions[0])) for one in support]
    made = []
    for query, other in zip(queries, others, strict=True):
        keys = [("caption", query.image_key), ("caption_other", other)][: 1 + control]
        calls = tuple(Call(key, prompts.caption(examples, words[image]), MAX_TOKENS) for key, image in keys)
        shown = {
            "references": list(query.captions),
            "words": words[query.image_key],
            "query_key": query.image_key,
            "other_key": other,
        }
        made.append(Item(query.key, calls, query.captions[0], shown))
    return tuple(made)


def score(shown: Mapping[str, Any], answers: Mapping[str, str]) -> tuple[dict[str, float], dict[str, Any]]:
    """BLEU-4 and ROUGE-L of the sentence. CIDEr and BLEU-4 of all captions together (`scoring.caption_scores`) are
    computed over the log, from the metadata: they are no means of sentences."""
    values: dict[str, float] = {}
    finished = {key: scoring.finished(answer, prompts.STOP) for key, answer in answers.items()}
    for key, answer in finished.items():
        suffix = key.removeprefix("caption")
        totals, _ = scoring.caption_scores([answer], [shown["references"]])
        values |= {f"{name}{suffix}": totals[name] for name in ("bleu4", "rouge_l")}
    metadata = {
        "answer": finished["caption"],
        "answers": dict(answers),
        "references": shown["references"],
        "words": shown["words"],
        "query_key": shown["query_key"],
    }
    if "caption_other" in finished:
        metadata["answer_other"] = finished["caption_other"]
    return values, metadata


def _line(text: str) -> str:
    """As one line: a line break would end the block."""
    return " ".join(text.split())
