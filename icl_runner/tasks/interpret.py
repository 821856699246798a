"""The words alone, without an example: what does the model say the image is?"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from icl_runner import prompts, scoring
from icl_runner.data.examples import Example
from icl_runner.tasks import Call, Item

MAX_TOKENS = 24

# Of a caption, words that say nothing of what is in the image.
_COMMON = """
about above across after along among around away back before behind below beneath beside between both down
each from front group have held her his image inside into its large left little looking lots made many
middle near next onto other over photo photograph picture right several side small some standing that their
them there these they this three through together under very view walking which while with
"""


def names(example: Example, class_names: Mapping[str, str]) -> list[str]:
    """What may be said of an image: its class's name (or names, between commas), and its captions' content words."""
    of_class = class_names[example.label].split(",") if example.label is not None else []
    words = re.findall(r"[^\W\d_]{4,}", " ".join(example.captions).casefold())
    said = [name.strip() for name in of_class] + sorted(set(words) - set(_COMMON.split()))
    return list(dict.fromkeys(name for name in said if name))


def items(
    queries: Sequence[Example],
    others: Sequence[str],
    words: Mapping[str, str],
    class_names: Mapping[str, str],
    *,
    control: bool = True,
) -> tuple[Item, ...]:
    """The calls for every query: "answer", and "answer_other" with another image's words.

    Args:
        others: of each query, the image key whose words take the place of its own in the control.
        words: image key -> its words.
    """
    made = []
    for query, other in zip(queries, others, strict=True):
        keys = [("answer", query.image_key), ("answer_other", other)][: 1 + control]
        calls = tuple(Call(key, prompts.interpret(words[image]), MAX_TOKENS) for key, image in keys)
        true = names(query, class_names)
        shown = {
            "names": true,
            "words": words[query.image_key],
            "query_key": query.image_key,
            "other_key": other,
        }
        made.append(Item(query.key, calls, true[0] if true else "", shown))
    return tuple(made)


def score(shown: Mapping[str, Any], answers: Mapping[str, str]) -> tuple[dict[str, float], dict[str, Any]]:
    """1 where a true name stands in the answer."""
    values = {
        key.replace("answer", "named"): float(
            scoring.named(scoring.finished(answer, prompts.STOP), shown["names"])
        )
        for key, answer in answers.items()
    }
    metadata = {
        "answers": dict(answers),
        "truth": ", ".join(shown["names"]),
        "words": shown["words"],
        "query_key": shown["query_key"],
    }
    return values, metadata
