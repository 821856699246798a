"""Another program that does the same work in a process of its own Python, and takes turns with ours."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from spae.errors import InputError


class Peer:
    """A script beside this file that reads one request a line, as JSON, from standard input, and answers each with a
    line; before the first with one that says what it is.

    Attributes:
        facts: what that first line says.

    Args:
        python: the interpreter that has what the script imports.
        script: its file name.
        arguments: of its command line.

    Raises:
        InputError: it ended.
    """

    def __init__(self, python: str, script: str, arguments: Sequence[str | Path]) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name(script)), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self.facts = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request. What it says beside its seconds is of the peer, and becomes one of its `facts`.

        Raises:
            InputError: it ended instead.
        """
        stream = cast(IO[str], self._process.stdin)
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        answer = self._answer()
        self.facts |= {name: value for name, value in answer.items() if name != "seconds"}
        return answer

    def _answer(self) -> dict[str, Any]:
        line = cast(IO[str], self._process.stdout).readline()
        if not line:
            self.close()
            raise InputError(
                f"the peer ended with status {self._process.returncode}; run it by hand: {self._process.args}"
            )
        return json.loads(line)

    def close(self) -> None:
        """Waits until it has ended."""
        self._process.communicate()
