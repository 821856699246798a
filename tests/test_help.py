"""What the three programs say of their options."""

import re

import pytest

import icl_runner.cli
import spae.cli
import tokenizer_train.cli
from icl_runner import tasks

SPAE = ("encode", "decode", "draw", "prompt", "serve", "bulk", "demo", "vocab build")
TRAIN = ("default64", "connector_frozen", "eval")
ICL = (
    *(f"run {name}" for name in tasks.names()),
    "report",
    "compare",
    "replay",
    "demo",
    "mark",
    "instruct",
    "judge",
)
COMMANDS = [
    *((spae.cli.main, command) for command in SPAE),
    *((tokenizer_train.cli.main, command) for command in TRAIN),
    *((icl_runner.cli.main, command) for command in ICL),
]


@pytest.mark.parametrize(("main", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_every_option_has_a_help_of_its_own(main, command, capsys):
    """The help is the comment at a field's own line or above it: what a formatter has wrapped loses its own, and may
    be given that of the field before."""
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    helps = told(capsys.readouterr().out)
    assert helps
    assert [option for option, said in helps.items() if not said] == []
    assert sorted(helps.values()) == sorted(set(helps.values()))


def told(shown: str) -> dict[str, str]:
    """option -> its help, without the default."""
    helps: dict[str, str] = {}
    option = None
    for line in map(str.rstrip, shown.splitlines()):
        if found := re.match(r"  (--?[a-z].*?)(?:  +(\S.*))?$", line):
            option, said = found.groups()
            helps[option] = said or ""
        elif option and line.startswith("    "):
            helps[option] += " " + line.strip()
    return {option: re.sub(r"\((default|required).*", "", said).strip() for option, said in helps.items()}
