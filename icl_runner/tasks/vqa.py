"""Questions about images given by their words, after a few examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from icl_runner import prompts, scoring
from icl_runner.cells import TextCell
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import Images
from icl_runner.figures import Measure
from icl_runner.options import NameOrPath, wholes
from icl_runner.task import task
from icl_runner.texts.task import QuestionTask


@task
@dataclass(frozen=True, kw_only=True)
class Vqa(QuestionTask):
    """Questions about images, after a few examples.

    example: spae-icl run vqa --model completions/llama -M dialect=vllm --model-base-url http://localhost:8000/v1
    """

    title = "Questions about images"
    measures = (
        Measure("vqa", "VQA accuracy, %", 100, 1),
        Measure("exact", "exact match, %", 100, 1, share=True),
    )
    rules = ("exact",)
    max_tokens = 12
    wanted = "images with a question and its answers"

    data: NameOrPath = "easy-vqa"  # a folder of VQAv2, or easy-vqa
    shots: Annotated[tuple[int, ...], wholes(1)] = (4,)  # examples in context

    def examples(self) -> ExampleSet:
        from icl_runner.data import sets

        return sets.asked(self.data, self.split)

    def cells(self, images: Images) -> list[TextCell]:
        return self.few_shot(images, self.shots)

    def is_usable(self, example: Example, class_names: Mapping[str, str]) -> bool:
        return bool(example.question and example.answers)

    def prompt(self, support: Sequence[tuple[Example, str]], query: Example, words: str) -> prompts.Prompt:
        """Of each example the answer that most people gave is shown; the control is the same question about another
        image's words."""
        examples = [(seen, _question(one), _most_said(one.answers)) for one, seen in support]
        return prompts.vqa(examples, words, _question(query))

    def truth(self, query: Example, class_names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        return _most_said(query.answers), {"question": _question(query), "humans": list(query.answers)}

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
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
            "truth": _most_said(shown["humans"]),
            "humans": shown["humans"],
            "words": shown["words"],
            "query_key": shown["query_key"],
        }
        return values, metadata


def _most_said(answers: Sequence[str]) -> str:
    """The answer that most people gave; of equals the first."""
    return Counter(answers).most_common(1)[0][0]


def _question(example: Example) -> str:
    """As one line: a line break would end it."""
    return " ".join((example.question or "").split())
