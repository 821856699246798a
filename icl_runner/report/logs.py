"""Logs of finished and unfinished runs, read back as what they measured: a `CellResult` for every setting.

A cell may lie in several logs: a run that was killed and started again leaves one for each start. They are
joined by what was measured (model and how it was asked, task, data, seed, ..), sample by sample, so that the report
of a run in pieces is the report of the unbroken run.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_runner import tasks
from icl_runner.results import CellResult, Failure, Sample
from spae.errors import InputError

# inspect-ai takes three seconds to import: only where logs are read.
if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

# An error of ours, as Python writes it. Its message is a sentence; of others the name says as much.
_RAISED = re.compile(r"InputError\((['\"])(.*)\1\)")

# Long, and not needed to count: the conversation itself.
NOT_READ = {"messages", "events", "store", "events_data", "timelines"}


def collect(log_paths: Iterable[str | Path]) -> list[CellResult]:
    """The cells of all logs at `log_paths`: files, or folders searched at any depth; in a fixed order.

    Of a sample that several logs hold, the latest that was scored counts, else the latest failure.

    Raises:
        InputError: no logs, an unreadable log, a log of another program.
    """
    joined: dict[str, list[EvalLog]] = {}
    providers: dict[str, set[str]] = {}  # of each model
    for _, log in read_all(log_paths):
        provider = _provider(log)
        providers.setdefault(log.eval.model, set()).add(provider)
        told = [log.eval.model, provider, (log.eval.metadata or {})["spae"]]
        joined.setdefault(json.dumps(told, sort_keys=True), []).append(log)
    cells = [
        _join(logs, _provider(logs[0]) if len(providers[logs[0].eval.model]) > 1 else "")
        for logs in joined.values()
    ]
    known = tasks.names()
    return sorted(cells, key=lambda cell: (known.index(cell.task), _order(cell)))


def read_all(log_paths: Iterable[str | Path]) -> list[tuple[str, "EvalLog"]]:
    """All logs at `log_paths` with their paths, by the time of their start; without the conversations.

    Raises:
        InputError: as `collect`.
    """
    read = [(path, _read(path)) for path in _find(log_paths)]
    known = tasks.names()
    for path, log in read:
        spae = (log.eval.metadata or {}).get("spae")
        if not isinstance(spae, dict) or spae.get("task") not in known:
            raise InputError(
                f"{path} is no log of spae-icl run: wanted one of {', '.join(known)}; leave it out"
            )
    # The name settles ties, so that the order never depends on the file system.
    return sorted(read, key=lambda one: (one[1].eval.created, Path(one[0]).name))


def _provider(log: "EvalLog") -> str:
    """How the model of a log was asked: its endpoint, what its provider was told, its revision."""
    revision = (log.eval.metadata or {})["spae"].get("model_revision", "")
    arguments = [f"{name}={value}" for name, value in sorted((log.eval.model_args or {}).items())]
    return " ".join(filter(None, [log.eval.model_base_url, *arguments, revision[:12]]))


def _order(cell: CellResult) -> str:
    setting = {
        name: f"{value:08}" if isinstance(value, int) else value for name, value in cell.setting.items()
    }
    told = [cell.model, cell.bundle, setting, cell.data, cell.seed, cell.version, cell.provider]
    return json.dumps(told, sort_keys=True)


def _find(log_paths: Iterable[str | Path]) -> list[str]:
    found: set[str] = set()
    for path in map(Path, log_paths):
        if path.is_dir():
            logs = [str(file) for suffix in ("eval", "json") for file in path.rglob(f"*.{suffix}")]
            # inspect keeps books of its own beside the logs of a set.
            logs = [log for log in logs if Path(log).name not in ("eval-set.json", "logs.json")]
            if not logs:
                raise InputError(f"no logs in {path}: wanted .eval or .json files of spae-icl run")
            found.update(logs)
        elif path.is_file():
            found.add(str(path))
        else:
            raise InputError(f"no log at {path}: wanted a log of spae-icl run, or a folder of them")
    if not found:
        raise InputError("wanted logs of spae-icl run, or folders of them, got none")
    return sorted(found)


def _read(path: str) -> "EvalLog":
    from inspect_ai.log import read_eval_log

    try:
        return read_eval_log(path, exclude_fields=NOT_READ)
    except Exception as error:  # whatever a damaged file makes a zip or JSON reader raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"cannot read the log {path}: it is damaged, or no log of spae-icl run ({reason})"
        ) from error


def _join(logs: Sequence["EvalLog"], provider: str) -> CellResult:
    scored: dict[str, Sample] = {}
    failed: dict[str, Failure] = {}
    usage: dict[str, dict[str, tuple[int, int]]] = {}
    for log in logs:
        for sample in log.samples or []:
            key = str(sample.id) if sample.epoch == 1 else f"{sample.id} ({sample.epoch})"
            score = next(iter((sample.scores or {}).values()), None)
            if sample.error is None and score is not None and isinstance(score.value, dict):
                scored[key] = Sample(key, _floats(score.value), score.metadata or {}, _photograph(sample))
            elif key in scored:
                continue
            elif not _is_cut_off(sample):
                failed[key] = Failure(key, _reason(sample))
            usage[key] = _usage(sample)
    last = logs[-1]
    spae = (last.eval.metadata or {})["spae"]
    total: dict[str, tuple[int, int]] = {}
    for of_sample in usage.values():
        for model, (read, written) in of_sample.items():
            before = total.get(model, (0, 0))
            total[model] = before[0] + read, before[1] + written
    return CellResult(
        task=spae["task"],
        model=last.eval.model,
        setting=spae.get("cell", {}),
        bundle=spae.get("bundle", ""),
        bundle_sha256=spae.get("bundle_sha256", ""),
        data=spae.get("data", ""),
        data_fingerprint=spae.get("data_fingerprint", ""),
        seed=spae.get("seed", 0),
        version=spae.get("version", ""),
        samples=tuple(scored[key] for key in sorted(scored)),
        failures=tuple(failed[key] for key in sorted(failed) if key not in scored),
        expected=max(len(log.eval.dataset.sample_ids or []) or log.eval.dataset.samples or 0 for log in logs)
        * (last.eval.config.epochs or 1),
        usage={model: total[model] for model in sorted(total)},
        seconds=sum(map(_seconds, logs)),
        examples_sha256=spae.get("examples_sha256", ""),
        episodes_sha256=spae.get("episodes_sha256", ""),
        provider=provider,
    )


def _is_cut_off(sample: "EvalSample") -> bool:
    """Whether the run was stopped while it was asked about: it did not fail, it is missing."""
    return sample.error is not None and sample.error.message.startswith("CancelledError")


def _floats(value: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(one) for name, one in value.items() if isinstance(one, int | float)}


def _photograph(sample: "EvalSample") -> str:
    """The first picture of the sample's input; inspect keeps long texts apart, as attachments."""
    for message in [] if isinstance(sample.input, str) else sample.input:
        for part in [] if isinstance(message.content, str) else message.content:
            if part.type == "image":
                reference = part.image.removeprefix("attachment://")
                return sample.attachments.get(reference, reference)
    return ""


def _usage(sample: "EvalSample") -> dict[str, tuple[int, int]]:
    """Tokens in and out; what an endpoint found in its cache was read too, and is counted."""
    return {
        model: (
            used.input_tokens + (used.input_tokens_cache_read or 0) + (used.input_tokens_cache_write or 0),
            used.output_tokens,
        )
        for model, used in sample.model_usage.items()
    }


def _reason(sample: "EvalSample") -> str:
    if sample.error is not None:
        message = sample.error.message.strip().partition("\n")[0] or "an error without a message"
        # inspect-ai keeps what was raised as Python writes it.
        return found[2] if (found := _RAISED.fullmatch(message)) else message
    if sample.limit is not None:
        return f"stopped at its limit of {sample.limit.type}"
    return "no score was written"


def _seconds(log: "EvalLog") -> float:
    """From the log's start to its end; to its last finished sample if the run was broken off."""
    if not log.stats.started_at:
        return 0.0
    ends = [log.stats.completed_at] if log.stats.completed_at else []
    ends = ends or [sample.completed_at for sample in log.samples or [] if sample.completed_at]
    start = datetime.fromisoformat(log.stats.started_at)
    return max([0.0, *((datetime.fromisoformat(end) - start).total_seconds() for end in ends)])
