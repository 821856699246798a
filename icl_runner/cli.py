"""`spae-icl`: in-context experiments with language models, from the command line.

Exit status: 0 done, 1 failed (one line on stderr), 2 bad usage, 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from icl_runner import commands_mark
from icl_runner.arguments import EXAMPLES, add_bundle, add_prices, add_tasks, model_name
from spae.cli import run_command

# inspect-ai and JAX take seconds to import: whatever needs them is imported where it is used.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    return run_command(_parser(), arguments)


def _run(options: argparse.Namespace) -> int:
    from icl_runner.plan import Plan

    prices = _prices(options)
    plan = Plan(_settings(options))
    if options.split is None and plan.examples.split is not None:
        print(f"spae-icl: no --split was given, took {plan.examples.split}", file=sys.stderr)
    if options.dry_run:
        from icl_runner.estimate import describe

        for line in describe(plan.cells, options.model, prices):
            print(line)
        return 0

    from icl_runner.report.report import markdown
    from icl_runner.report.results import collect
    from icl_runner.run import run

    log_dir = options.log_dir or Path("logs") / options.task
    done = run(plan, log_dir, max_connections=options.max_connections, max_retries=options.max_retries)
    print(markdown(collect([log_dir]), prices))
    if not done:
        again = "the same command tries what failed or is missing again"
        print(f"spae-icl: not every sample has a score (see {log_dir}): {again}", file=sys.stderr)
    return 0 if done else 1


def _settings(options: argparse.Namespace) -> Any:
    """The fields of `Settings` that the task's options hold."""
    from dataclasses import fields

    from icl_runner.settings import Drawing, Settings

    given = vars(options) | {"model_args": dict(options.model_args)}

    def of(kind: type) -> dict[str, Any]:
        named = {field.name: given[field.name] for field in fields(kind) if field.name in given}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in named.items()}

    return Settings(**of(Settings), drawing=Drawing(**of(Drawing)))


def _report(options: argparse.Namespace) -> int:
    from icl_runner.report.report import as_json, collect, markdown, write_html

    prices = _prices(options)
    cells = collect(options.logs)
    if options.html is not None:
        write_html(cells, options.html, prices, options.published)
    if options.json:
        print(json.dumps(as_json(cells, prices), ensure_ascii=False))
    else:
        print(markdown(cells, prices, options.published))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from icl_runner.demo import write_demo

    write_demo(options.output, options.bundle, options.model)
    return 0


def _prices(options: argparse.Namespace) -> Any:
    if options.prices is None:
        return None
    from icl_runner.prices import read_prices

    return read_prices(options.prices)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spae-icl",
        description="In-context experiments: language models see, name and draw images through words.",
        epilog="example: spae-icl demo",
    )
    parser.add_argument("--version", action="version", version=f"spae {version('spae')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    runs = commands.add_parser(
        "run",
        help="an experiment; run again, it goes on where it was broken off",
        epilog=f"example: {EXAMPLES['classify']}",
    )
    runs.set_defaults(run=_run)
    add_tasks(runs)

    report = _command(
        commands,
        "report",
        "tables, JSON or a page of finished runs",
        "spae-icl report logs --html report.html",
        _report,
    )
    report.add_argument("logs", nargs="+", metavar="LOGS", help="log files, or folders of them")
    report.add_argument("--html", type=Path, metavar="FILE", help="write a self-contained page, too")
    report.add_argument("--json", action="store_true", help="print the figures as JSON")
    report.add_argument("--published", action="store_true", help="set reported figures of others beside ours")
    add_prices(report)

    demo = _command(
        commands,
        "demo",
        "a few-shot episode and an image drawn in context, by the embedded model, on one page",
        "spae-icl demo --output demo",
        _demo,
    )
    demo.add_argument(
        "--output", type=Path, default=Path("demo"), metavar="DIR", help="where to write (./demo)"
    )
    demo.add_argument(
        "--model",
        type=model_name,
        default="spae-lm/default",
        metavar="PROVIDER/NAME",
        help="who answers (spae-lm/default)",
    )
    add_bundle(demo)
    commands_mark.add(commands)
    return parser


def _command(commands: Any, name: str, purpose: str, example: str, run: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=f"example: {example}"
    )
    command.set_defaults(run=run)
    return command


if __name__ == "__main__":
    sys.exit(main())
