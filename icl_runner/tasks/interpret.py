"""The words alone, without an example: what does the model say the image is?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_runner import prompts, scoring
from icl_runner.cells import TextCell
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import Images
from icl_runner.figures import Measure
from icl_runner.options import NameOrPath
from icl_runner.task import task
from icl_runner.texts.task import QuestionTask

# Of a caption, words that say nothing of what is in the image.
_COMMON = """
about above across after along among around away back before behind below beneath beside between both down
each from front group have held her his image inside into its large left little looking lots made many
middle near next onto other over photo photograph picture right several side small some standing that their
them there these they this three through together under very view walking which while with
"""


@task
@dataclass(frozen=True, kw_only=True)
class Interpret(QuestionTask):
    """What the words alone say to the model.

    example: spae-icl run interpret --model google/gemini-2.5-flash --layers 2 3 --dry-run
    """

    title = "What the words alone say"
    measures = (Measure("named", "class named, %", 100, 1, share=True),)
    rules = ("named",)
    max_tokens = 24
    wanted = "images with a class or a caption"

    data: NameOrPath = "photographs"  # images with classes or captions, or photographs

    def examples(self) -> ExampleSet:
        from icl_runner.data import sets

        return sets.pictured(self.data, self.split)

    def cells(self, images: Images) -> list[TextCell]:
        return self.few_shot(images, (0,))

    def is_usable(self, example: Example, class_names: Mapping[str, str]) -> bool:
        return bool(names(example, class_names))

    def prompt(self, support: Sequence[tuple[Example, str]], query: Example, words: str) -> prompts.Prompt:
        return prompts.interpret(words)

    def truth(self, query: Example, class_names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        said = names(query, class_names)
        return said[0] if said else "", {"names": said}

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
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


def names(example: Example, class_names: Mapping[str, str]) -> list[str]:
    """What may be said of an image: its class's name (or names, between commas), and its captions' content words."""
    of_class = class_names[example.label].split(",") if example.label is not None else []
    words = re.findall(r"[^\W\d_]{4,}", " ".join(example.captions).casefold())
    said = [name.strip() for name in of_class] + sorted(set(words) - set(_COMMON.split()))
    return list(dict.fromkeys(name for name in said if name))
