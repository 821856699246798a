"""`spae-icl`: in-context experiments with language models, from the command line.

Exit status: 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted.
"""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, Union

import tyro

from icl_runner import tasks
from icl_runner.instruct.command import Instruct
from icl_runner.judge.command import Judge
from icl_runner.marks.command import Mark
from icl_runner.options import ModelName, NameOrPath, Switch, option, optional, some, whole
from icl_runner.settings import MAX_RETRIES
from icl_runner.task import Task
from spae.cli import exit_status
from spae.errors import InputError

# inspect-ai and JAX take seconds to import: whatever needs them is imported where it is used.
if TYPE_CHECKING:
    from icl_runner.prices import Prices

T = TypeVar("T", bound=Task)

DESCRIPTION = """In-context experiments: language models see, name and draw images through words.

example: spae-icl demo"""
USAGE = (
    "usage: spae-icl run TASK --model PROVIDER/NAME ..  |  report LOGS ..  |  compare LOGS ..  |  replay LOGS ..  |  "
    "demo  |  mark IMAGE  |  instruct SCENES  |  judge ANSWERS"
)

PricesFile = Annotated[Path | None, optional("FILE")]


@dataclass(frozen=True, kw_only=True)
class Run(Generic[T]):
    """An experiment; run again, it goes on where it was broken off.

    example: spae-icl run classify --model spae-lm/default --data mini-imagenet --split test --ways 2 5
    """

    task: T  # chosen by name, with its settings
    log_dir: Annotated[Path | None, optional("DIR")] = None  # of one run's logs (logs/TASK)
    # calls at the same time (the provider's own number; of pictures by an embedded model, those of one context)
    max_connections: Annotated[int | None, whole(1), optional("N")] = None
    max_retries: Annotated[int, whole(0)] = MAX_RETRIES  # of a failed call
    dry_run: Switch = False  # print prompts, tokens and cost, and ask nothing
    # JSON: {"currency": "USD", "provider/name": {"input": 0.5, "output": 1.5}}, per million tokens
    prices: PricesFile = None

    def __call__(self) -> int:
        from icl_runner.endpoint import check_model
        from icl_runner.plan import Plan

        prices, task = _prices(self.prices), self.task
        check_model(task.model, task.base_url, task.model_args, asked=not self.dry_run)
        plan = Plan(task)
        split = plan.images.examples.split
        if self.task.split is None and split is not None:
            print(f"spae-icl: no --split was given, took {split}", file=sys.stderr)
        for note in self.task.notes():
            print(f"spae-icl: {note}", file=sys.stderr)
        if self.dry_run:
            from icl_runner.estimate import describe

            for line in describe(plan.cells, self.task.model, prices):
                print(line)
            return 0

        from icl_runner.report.logs import collect
        from icl_runner.report.report import markdown
        from icl_runner.run import run

        log_dir = self.log_dir or Path("logs") / self.task.name
        done = run(plan, log_dir, max_connections=self.max_connections, max_retries=self.max_retries)
        print(markdown(collect([log_dir]), prices))
        if not done:
            again = "the same command tries what failed or is missing again"
            print(f"spae-icl: not every sample has a score (see {log_dir}): {again}", file=sys.stderr)
        return 0 if done else 1


@dataclass(frozen=True, kw_only=True)
class Report:
    """Tables, JSON or a page of finished runs.

    example: spae-icl report logs --html report.html
    """

    # log files, or folders of them
    logs: Annotated[tuple[str, ...], some("LOGS"), tyro.conf.Positional, optional("LOGS [LOGS ..]")]
    html: Annotated[Path | None, optional("FILE")] = None  # write a self-contained page, too
    json: Switch = False  # print the figures as JSON
    published: Switch = False  # set reported figures of others beside ours
    # JSON: {"currency": "USD", "provider/name": {"input": 0.5, "output": 1.5}}, per million tokens
    prices: PricesFile = None

    def __call__(self) -> int:
        from icl_runner.report.logs import collect
        from icl_runner.report.report import as_json, markdown, write_html

        prices = _prices(self.prices)
        cells = collect(self.logs)
        if self.html is not None:
            write_html(cells, self.html, prices, self.published)
        if self.json:
            print(json.dumps(as_json(cells, prices), ensure_ascii=False))
        else:
            print(markdown(cells, prices, self.published))
        return 0


@dataclass(frozen=True, kw_only=True)
class Compare:
    """One table of words, connectors and their controls on the same episodes.

    example: spae-icl compare logs/words logs/frozen logs/linear
    """

    # log files, or folders of them, of classify, caption and vqa
    logs: Annotated[tuple[str, ...], some("LOGS"), tyro.conf.Positional, optional("LOGS [LOGS ..]")]
    json: Switch = False  # print the figures as JSON

    def __call__(self) -> int:
        from icl_runner.report.compare import as_json, compare, markdown
        from icl_runner.report.logs import collect

        made = compare(collect(self.logs))
        print(json.dumps(as_json(made), ensure_ascii=False) if self.json else markdown(made))
        return 0


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Scores again what logs hold, without a model or an image, and says where a score is not as it was logged.

    example: spae-icl replay logs/classify --ask 2
    """

    # log files, or folders of them
    logs: Annotated[tuple[str, ...], some("LOGS"), tyro.conf.Positional, optional("LOGS [LOGS ..]")]
    ask: Annotated[int, whole(0)] = 0  # ask the model of each log again about its first N samples
    json: Switch = False  # print everything as JSON

    def __call__(self) -> int:
        from icl_runner.replay import ask_again, score_again, told
        from icl_runner.report.logs import read_all

        replayed = [score_again(path, log) for path, log in read_all(self.logs)]
        if self.ask:
            replayed = [ask_again(one, self.ask) for one in replayed]
        if self.json:
            print(json.dumps([one.as_json() for one in replayed], ensure_ascii=False))
        else:
            for line in told(replayed):
                print(line)
        return 1 if any(one.changed for one in replayed) else 0


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A few-shot episode and an image drawn in context, by the embedded model, on one page.

    example: spae-icl demo --output demo
    """

    output: Annotated[Path, option("DIR")] = Path("demo")  # where to write
    model: ModelName = "spae-lm/default"  # who answers
    bundle: NameOrPath = "default"  # the trained tokenizer

    def __call__(self) -> int:
        from icl_runner.demo.page import write_demo

        write_demo(self.output, self.bundle, self.model)
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        print(f"spae {version('spae')}")
        return 0
    return exit_status("spae-icl", lambda: _parse(given)())


def _parse(arguments: Sequence[str]) -> Run | Report | Compare | Replay | Demo | Mark | Instruct | Judge:
    """The command asked for.

    Raises:
        InputError: settings that refuse themselves.
        SystemExit: with status 2 after an explanation on stderr, with 0 after help.
    """
    refused = io.StringIO()
    try:
        with contextlib.redirect_stderr(refused):
            return tyro.cli(
                _commands(),
                args=arguments,
                prog="spae-icl",
                description=DESCRIPTION,
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.OmitSubcommandPrefixes,
                    # `run TASK` takes what `run` takes, in any order.
                    tyro.conf.CascadeSubcommandArgs,
                    tyro.conf.DisallowNone,
                ),
            )
    except SystemExit as stop:
        # tyro takes every ValueError of a dataclass for bad usage; an InputError is told as everywhere else.
        cause = stop.__context__
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__context__
        if stop.code:
            print(f"{USAGE}\n{refused.getvalue()}", end="", file=sys.stderr)
        raise


def _commands() -> Any:
    """The type that tyro makes of the command line: the commands, and in `run` a choice of all tasks there are."""
    kinds = [Annotated[tasks.find(name), tyro.conf.subcommand(name)] for name in tasks.names()]
    choice: Any = Union[tuple(kinds)]  # noqa: UP007
    return (
        Annotated[Run[choice], tyro.conf.subcommand("run")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Replay, tyro.conf.subcommand("replay")]
        | Annotated[Demo, tyro.conf.subcommand("demo")]
        | Annotated[Mark, tyro.conf.subcommand("mark")]
        | Annotated[Instruct, tyro.conf.subcommand("instruct")]
        | Annotated[Judge, tyro.conf.subcommand("judge")]
    )


def _prices(path: Path | None) -> "Prices | None":
    if path is None:
        return None
    from icl_runner.prices import read_prices

    return read_prices(path)


if __name__ == "__main__":
    sys.exit(main())
