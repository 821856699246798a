"""`spae-icl replay`: a run again from its logs. Scores are computed from the answers that the logs hold, with the code
of now; and samples are asked again, as the logs have their calls."""

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from icl_runner import tasks
from icl_runner.cells import CONNECTOR, calls_from_json
from icl_runner.endpoint import load_model
from icl_runner.texts.task import TextTask
from spae.errors import InputError

# inspect-ai takes three seconds to import.
if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import Model

_SHOWN = 20  # differences of a log that are told one by one


@dataclass(frozen=True)
class Difference:
    """Something of a sample that is not as it was logged: a score, or an answer."""

    id: str
    key: str
    logged: Any
    now: Any


@dataclass(frozen=True)
class Replayed:
    """One log.

    Args:
        samples, scores: how many were scored again.
        left: samples that were scored and could not be scored again: their logs do not hold all that it takes.
        changed: scores that are not as logged.
        asked: how many answers were asked for again.
        answers: those of them that are not as logged.
    """

    path: str
    log: "EvalLog"
    samples: int
    scores: int
    left: int
    changed: tuple[Difference, ...]
    asked: int = 0
    answers: tuple[Difference, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "log": self.path,
            "task": _task(self.log).name,
            "model": self.log.eval.model,
            "samples": self.samples,
            "scores": self.scores,
            "not_scored_again": self.left,
            "changed": [vars(one) for one in self.changed],
            "asked": self.asked,
            "other_answers": [vars(one) for one in self.answers],
        }


def score_again(path: str, log: "EvalLog") -> Replayed:
    """The scores of a log from what it holds, beside those that were logged; the logged ones that are missing now, or
    new, differ as well."""
    task = _task(log)
    scored = counted = left = 0
    changed: list[Difference] = []
    for sample in log.samples or []:
        logged = _logged(sample)
        if logged is None:
            continue  # it failed, and nothing was scored
        now = task.scored_again(sample.metadata)
        if now is None:
            left += 1
            continue
        scored, counted = scored + 1, counted + len(now)
        changed += [
            Difference(str(sample.id), key, logged.get(key), now.get(key))
            for key in sorted({*logged, *now})
            if not _equal(logged.get(key), now.get(key))
        ]
    return Replayed(path, log, scored, counted, left, tuple(changed))


def ask_again(replayed: Replayed, count: int) -> Replayed:
    """The first samples of a log asked again, by their ids, with the model that the log names.

    Raises:
        InputError: the model cannot be had, is shown images or gives no answer, the task is not one of texts, or the
            log does not hold its calls.
    """
    log = replayed.log
    if not issubclass(_task(log), TextTask):
        raise InputError(
            f"{replayed.path}: wanted a log of a task whose answers are texts to ask again, it is of "
            f"{_task(log).name}: leave --ask out"
        )
    if log.eval.model.startswith(CONNECTOR):
        raise InputError(
            f"{replayed.path}: {log.eval.model} is shown images, which no log holds: leave --ask out, and ask again by "
            "`spae-icl run` with the same options and another --log-dir"
        )
    kept = sorted(
        (one for one in log.samples or [] if "answers" in one.metadata), key=lambda one: str(one.id)
    )[:count]
    if any("calls" not in one.metadata for one in kept):
        raise InputError(
            f"{replayed.path}: wanted the calls that were put, the log does not hold them (of detect only with "
            "--answers free): leave --ask out, and ask again by `spae-icl run` with the same options and another "
            "--log-dir"
        )
    model = load_model(log.eval.model, log.eval.model_base_url, log.eval.model_args)
    try:
        given = asyncio.run(_ask(model, kept))
    except InputError:
        raise
    except Exception as error:  # whatever its provider raises
        reason = " ".join(str(error).split())
        raise InputError(f"{replayed.path}: {log.eval.model} gave no answer ({reason})") from error
    differences = [
        Difference(str(sample.id), key, sample.metadata["answers"].get(key), answer)
        for sample, answers in zip(kept, given, strict=False)
        for key, answer in answers.items()
        if not _same(sample.metadata["answers"].get(key), answer)
    ]
    return replace(replayed, asked=sum(map(len, given)), answers=tuple(differences))


async def _ask(model: "Model", samples: Sequence["EvalSample"]) -> list[dict[str, Any]]:
    from icl_runner.texts import asking

    given = []
    for sample in samples:
        calls = calls_from_json(sample.metadata)
        given.append(asking.answers_of(calls, [await asking.put(call, model) for call in calls]))
    return given


def told(replayed: Sequence[Replayed]) -> Iterator[str]:
    """What came of it, line by line."""
    for one in replayed:
        yield f"{one.path}: {_task(one.log).name}, {one.log.eval.model}"
        verdict = "all as logged" if not one.changed else f"{len(one.changed)} not as logged"
        yield f"  {one.scores:,} scores of {one.samples:,} samples computed again, {verdict}"
        yield from _lines(one.changed)
        if one.left:
            yield f"  {one.left:,} samples were not scored again: the log does not hold all that it takes"
        if one.asked:
            same = one.asked - len(one.answers)
            yield f"  {one.asked:,} answers asked for again, {same:,} as logged"
            yield from _lines(one.answers)


def _lines(differences: Sequence[Difference]) -> Iterator[str]:
    for one in differences[:_SHOWN]:
        yield f"    {one.id}: {one.key} was {one.logged!r}, is {one.now!r}"
    if len(differences) > _SHOWN:
        yield f"    and {len(differences) - _SHOWN:,} more"


def _task(log: "EvalLog") -> type[tasks.Task]:
    return tasks.find((log.eval.metadata or {})["spae"]["task"])


def _logged(sample: "EvalSample") -> dict[str, float] | None:
    score = next(iter((sample.scores or {}).values()), None)
    if sample.error is not None or score is None or not isinstance(score.value, dict):
        return None
    return {key: float(value) for key, value in score.value.items() if isinstance(value, int | float)}


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))


def _same(one: Any, other: Any) -> bool:
    """Of answers: texts to the letter; log-probabilities to a thousandth, for rounding depends on what is computed
    beside them."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return set(one) == set(other) and all(abs(one[key] - other[key]) <= 1e-3 for key in one)
    return bool(one == other)
