"""Runs a plan with inspect-ai: a log for each cell, and nothing asked twice after a crash.

Finished samples are written to their cell's log at once, where many are in the air a few of them at a time
(`_log_buffer`), so that a killed run has lost little more than what was in the air. Running the same plan on the same
folder again takes up what the logs hold and asks for the rest, failed samples included. The folder also keeps the
settings; a run with others is refused, for its samples would stand beside these as if they were of one kind.
"""

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_runner import constraints
from icl_runner.cells import IN_PROCESS
from icl_runner.endpoint import ATTEMPT_SECONDS, input_errors, load_model, quiet
from icl_runner.episodes import files
from icl_runner.episodes.draw import Episode
from icl_runner.plan import Plan
from icl_runner.settings import MAX_RETRIES, differences
from spae.errors import InputError
from spae.files import write_file
from spae.progress import Progress

# JSON, but not called so: whatever ends in .json beside logs is taken for a log.
SETTINGS_FILE = "run.settings"
LOCK_FILE = "run.lock"


def run(
    plan: Plan,
    log_dir: str | Path,
    *,
    max_connections: int | None = None,
    max_retries: int = MAX_RETRIES,
) -> bool:
    """Run what of the plan is not done yet; whether every sample has a score now.

    Args:
        plan: what to ask.
        log_dir: of the logs; made if missing, or that of an earlier run of the same plan.
        max_connections: calls at the same time; by default the provider's own number, or, of a model in this process,
            those of all samples that share what they read (`Cell.sharing`).
        max_retries: of one call. A sample whose call fails for good is recorded as failed, and the run goes on.

    Raises:
        InputError: the folder holds a run with other settings or is in use, or the model cannot be had.
    """
    folder = Path(log_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    with _locked(folder):
        _check_settings(folder / SETTINGS_FILE, plan.record(), plan.defaults)
        for cell in plan.cells:
            if cell.episodes:
                _keep_episodes(folder / f"{cell.name}.episodes", cell.episodes)
        return _run(plan, folder, max_connections, max_retries)


def _run(plan: Plan, folder: Path, max_connections: int | None, max_retries: int) -> bool:
    from inspect_ai import eval_set

    from icl_runner import progress

    # What the embedded model keeps of a context serves the samples beside it: one cell after the other.
    embedded = plan.task.model.startswith(IN_PROCESS)
    max_samples, max_connections = _in_the_air(plan, max_connections)
    total = sum(len(cell.ids) for cell in plan.cells)
    with input_errors("inspect-ai"):
        finished = _finished(folder)
    with Progress(total, "samples", "sample", finished) as shown, progress.shown_on(shown), quiet():
        model = load_model(plan.task.model, plan.task.base_url, plan.task.model_args)
        with input_errors("inspect-ai"):
            done, _ = eval_set(
                [plan.task.build(cell, plan.metadata(cell)) for cell in plan.cells],
                str(folder),
                model=model,
                # Failed samples are recorded, and the next run tries them again: hence an error of the log.
                fail_on_error=True,
                continue_on_fail=True,
                retry_attempts=1,
                retry_immediate=False,
                # With no other record of inspect's beside the log.
                log_buffer=_log_buffer(plan, max_connections or model.api.max_connections()),
                log_realtime=False,
                log_format="eval",
                score_display=False,
                display="none",
                ctl_server=False,
                max_tasks=1 if embedded else len(plan.cells),
                max_samples=max_samples,
                max_connections=max_connections,
                max_retries=max_retries,
                attempt_timeout=None if constraints.supports(plan.task.model) else ATTEMPT_SECONDS,
            )
    return done


def _finished(folder: Path) -> int:
    """How many samples the logs of an earlier run hold, which inspect-ai takes over into its new ones."""
    from inspect_ai.log import list_eval_logs, read_eval_log_sample_summaries

    latest = {log.task: log for log in list_eval_logs(str(folder), descending=False)}
    samples = (sample for log in latest.values() for sample in read_eval_log_sample_summaries(log))
    return sum(sample.completed and sample.error is None for sample in samples)


def _in_the_air(plan: Plan, max_connections: int | None) -> tuple[int | None, int | None]:
    """Samples and calls at the same time at most; None is inspect's own number, or the provider's."""
    sharing = [cell.sharing for cell in plan.cells if cell.sharing is not None]
    if max_connections is not None or not sharing or not plan.task.model.startswith(IN_PROCESS):
        return max_connections, max_connections
    samples, calls = map(max, zip(*sharing, strict=True))
    return samples, samples * calls


def _log_buffer(plan: Plan, in_flight: int) -> int:
    """After how many finished samples a log is written, which is written anew each time: at once where few are in the
    air, or they take long; else an eighth of those in the air, or a hundredth of the largest cell."""
    if plan.task.model.startswith(IN_PROCESS):
        return 1
    return max(1, in_flight // 8, max((len(cell.ids) for cell in plan.cells), default=0) // 100)


def _check_settings(path: Path, record: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Write the settings of a new folder; `InputError` when it has others already."""
    text = json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if not path.exists():
        write_file(path, text.encode())
        return
    try:
        before = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}): choose another --log-dir") from error
    if not isinstance(before, dict):
        raise InputError(f"{path} is not as spae-icl run wrote it: choose another --log-dir")
    now = json.loads(text)
    before = _as_now(before, now, defaults)
    if before == now:
        return
    differing = differences(before, now)
    raise InputError(
        f"{path.parent} holds a run with other settings ({'; '.join(differing[:3])}): choose another --log-dir, "
        "or run with the same settings"
    )


def _as_now(before: dict[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it is written now: earlier ones held the settings of every task, those of drawing apart, and lack
    settings that came later, which had no other value than today's default."""
    settings = before.get("settings")
    if not isinstance(settings, dict):
        return before
    if isinstance(settings.get("drawing"), dict):
        every = {**settings, **settings["drawing"]}
        settings = {name: every[name] for name in now["settings"] if name in every}
    later = {name: value for name, value in defaults.items() if name in now["settings"]}
    return before | {"settings": later | settings}


def _keep_episodes(path: Path, listed: Sequence[Episode]) -> None:
    """Write the episodes of a new cell; `InputError` when its samples are of others with the same ids.

    They are what settings do not tell: the content of a file of episodes, and what the data calls its classes.
    """
    before = files.read(path) if path.exists() else None
    if before is None:
        files.write(path, listed)
    elif list(map(_in_order, before)) != list(map(_in_order, listed)):
        raise InputError(
            f"{path} holds other episodes than this run's (images or names of classes have changed): choose another "
            "--log-dir"
        )


def _in_order(episode: Episode) -> tuple[Episode, list[str]]:
    """The episode, and the order of its names, which equality of mappings does not see."""
    return episode, list(episode.names)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go when the process dies. `InputError` when another process holds it."""
    with open(folder / LOCK_FILE, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another run is writing to {folder}: wait for it, or choose another") from error
        yield
