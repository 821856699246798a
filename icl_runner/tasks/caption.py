"""Captions of images by their words, after a few examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from icl_runner import prompts, scoring
from icl_runner.cells import TextCell
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.images import Images
from icl_runner.figures import BLIND, OTHER, Control, Figure, Measure, interval, is_beaten
from icl_runner.options import NameOrPath, wholes
from icl_runner.results import CellResult
from icl_runner.task import task
from icl_runner.texts.task import QuestionTask


@task
@dataclass(frozen=True, kw_only=True)
class Caption(QuestionTask):
    """Captions, after a few examples.

    example: spae-icl run caption --model openai/gpt-4o --data coco --split val2017 --shots 4
    """

    title = "Captions"
    measures = (Measure("bleu4", "BLEU-4"), Measure("rouge_l", "ROUGE-L"), Measure("cider", "CIDEr"))
    key = "caption"
    max_tokens = 40
    wanted = "images with a caption"

    # COCO captions, images beside texts, tar shards; or photographs, or tuxpaint, if installed
    data: NameOrPath = "photographs"
    shots: Annotated[tuple[int, ...], wholes(1)] = (4,)  # examples in context

    def examples(self) -> ExampleSet:
        from icl_runner.data import sets

        return sets.captioned(self.data, self.split)

    def cells(self, images: Images) -> list[TextCell]:
        return self.few_shot(images, self.shots)

    def is_usable(self, example: Example, class_names: Mapping[str, str]) -> bool:
        """Every caption has a word that can be scored."""
        return bool(example.captions) and all(map(scoring.caption_tokens, example.captions))

    def prompt(self, support: Sequence[tuple[Example, str]], query: Example, words: str) -> prompts.Prompt:
        """The first caption of each example is shown."""
        return prompts.caption([(seen, _line(one.captions[0])) for one, seen in support], words)

    def truth(self, query: Example, class_names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        return query.captions[0], {"references": list(query.captions)}

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """BLEU-4 and ROUGE-L of the sentence. What all captions have together is no mean of these: `figures` computes
        it over the log, from the metadata."""
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
        for control in (OTHER, BLIND):
            if (key := f"caption{control.suffix}") in finished:
                metadata[f"answer{control.suffix}"] = finished[key]
        return values, metadata

    @classmethod
    def figures(cls, result: CellResult, control: Control | None = None) -> list[Figure]:
        """Over the corpus. BLEU-4 of a corpus is no mean over captions: it is compared by that of each, and has no
        interval."""
        key = f"answer{control.suffix if control else ''}"
        samples = [sample for sample in result.samples if key in sample.metadata]
        if not samples:
            return []
        references = [sample.metadata["references"] for sample in samples]
        total, each = scoring.caption_scores([sample.metadata[key] for sample in samples], references)
        _, results = scoring.caption_scores([sample.metadata["answer"] for sample in samples], references)
        ids = [sample.id for sample in samples]
        found = []
        for measure in cls.measures:
            name = measure.key
            low, high = (None, None) if name == "bleu4" else interval(each[name])
            ours, others = (dict(zip(ids, values[name], strict=True)) for values in (results, each))
            not_beaten = control is not None and not is_beaten(measure, ours, others)
            found.append(Figure(measure, total[name], low, high, len(samples), not_beaten))
        return found


def _line(text: str) -> str:
    """As one line: a line break would end the block."""
    return " ".join(text.split())
