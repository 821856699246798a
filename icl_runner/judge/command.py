"""`spae-icl judge`: answers about images, scored by a language model."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from icl_runner.options import ModelArguments, ModelName, Switch, option, optional, whole
from icl_runner.settings import MAX_RETRIES, refuse_secrets
from spae.errors import InputError

if TYPE_CHECKING:
    from icl_runner.judge.bench import Bench
    from icl_runner.judge.cases import Case, Judged


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Answers scored by a language model, as LLaVA-Bench or ViP-Bench has it; run again, it goes on.

    example: spae-icl judge answers.jsonl --questions questions.jsonl --contexts context.jsonl \\
        --references answers_gpt4.jsonl --by openai/gpt-4o
    """

    # llava: an object a line, question_id and text; vip: one object, id to text
    answers: Annotated[Path, tyro.conf.Positional, option("ANSWERS")]
    by: ModelName  # who judges
    bench: Literal["llava", "vip"] = "llava"  # whose score, and whose files
    # llava: question_id, image, text, category; vip: one object, id to question, answer, capability
    questions: Annotated[Path, option("FILE")]
    contexts: Annotated[Path | None, optional("FILE")] = None  # llava: image and caption
    references: Annotated[Path | None, optional("FILE")] = None  # llava: answers to compare with
    runs: Annotated[int, whole(1)] = 1  # of the judge, with different seeds
    # the judgements (ANSWERS.judged)
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = (
        None
    )
    base_url: Annotated[str | None, optional("URL", name="model-base-url")] = None  # of the judge's endpoint
    model_args: ModelArguments = field(default_factory=dict)
    # calls at the same time (the provider's own number)
    max_connections: Annotated[int | None, whole(1), optional("N")] = None
    max_retries: Annotated[int, whole(0)] = MAX_RETRIES  # of a failed call
    json: Switch = False  # print the scores as JSON

    def __post_init__(self) -> None:
        refuse_secrets(self.base_url, self.model_args)
        files = (self.contexts, self.references)
        if self.bench == "llava" and None in files:
            raise InputError("LLaVA-Bench needs --contexts and --references")
        if self.bench == "vip" and files != (None, None):
            raise InputError(
                "ViP-Bench's questions hold what is right: leave out --contexts and --references"
            )

    def __call__(self) -> int:
        from icl_runner.judge import llava_bench, vip_bench

        if self.contexts is not None and self.references is not None:
            cases = llava_bench.cases(self.questions, self.contexts, self.references, self.answers)
            return self._judge(llava_bench.BENCH, cases)
        return self._judge(vip_bench.BENCH, vip_bench.cases(self.questions, self.answers))

    def _judge(self, bench: "Bench[Any]", cases: "Sequence[Case]") -> int:
        from icl_runner.answer_file import AnswerFile
        from icl_runner.endpoint import ask, calls_failed, load_model
        from icl_runner.judge.cases import judged, questions

        asked = questions(cases, bench.system, bench.examples, self.runs)
        heading = {
            "format": "spae-icl-judge",
            "judge": self.by,
            "base_url": self.base_url,
            "model_args": dict(self.model_args),
        }
        model = load_model(self.by, self.base_url, self.model_args, shared=False)
        file = self.output or self.answers.with_name(f"{self.answers.name}.judged")
        with AnswerFile(file, heading) as answers:
            failures = ask(
                model,
                [question for of_case in asked for question in of_case],
                answers,
                "judgements",
                max_connections=self.max_connections,
                max_retries=self.max_retries,
            )
            found = judged(cases, asked, answers, failures, bench.read)
        self._print(bench, cases, found)
        if failures:
            print(f"spae-icl: {calls_failed(failures)}", file=sys.stderr)
        return 1 if failures else 0

    def _print(self, bench: "Bench[Any]", cases: "Sequence[Case]", found: "Judged[Any]") -> None:
        from icl_runner.judge.bench import as_json, columns, row, scored
        from icl_runner.report.report import markdown_table, notes
        from icl_runner.report.table import Table

        scores = scored(bench, cases, found, self.runs)
        if self.json:
            record = {
                "format": "spae-icl-judge",
                "bench": self.bench,
                "judge": self.by,
                "runs": self.runs,
                "failed": dict(found.failed),
                "scores": {one.group: as_json(bench, one) for one in scores},
            }
            print(json.dumps(record, ensure_ascii=False))
            return
        asked = f"{len(cases)} question{'' if len(cases) == 1 else 's'}, {self.runs} run{'' if self.runs == 1 else 's'}"
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(found.failed.items()))
        about = f"{self.answers.name}, judged by {self.by}: {asked}. " + (
            f"Judgements without a score, in no mean: {reasons}."
            if reasons
            else "Every judgement has a score."
        )
        table = Table(bench.title, about, columns(bench), tuple(row(bench, one) for one in scores))
        print("\n\n".join([markdown_table(table), *notes([table])]))
