"""The model that a command asks, as inspect-ai has it; and questions put to it outside of inspect-ai's tasks."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from icl_runner import constraints, scoring
from icl_runner.answer_file import Answer, AnswerFile
from icl_runner.cells import CONNECTOR, EMBEDDED
from icl_runner.prompts import MARKER
from icl_runner.settings import MAX_RETRIES
from spae import bundle
from spae.errors import InputError
from spae.progress import Progress

# inspect-ai takes three seconds to import.
if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, Model

# Of one call, by inspect-ai's own providers, which wait for ever unless told.
ATTEMPT_SECONDS = 600
# What a model that carries on a text may write; one that chats may think before it answers, which counts as well.
MAX_TOKENS = 512
CHAT_MAX_TOKENS = 4096


@dataclass(frozen=True)
class Question:
    """What is asked of a model.

    Args:
        key: what its answer is called, unique among those asked together.
        system: what the model is to do.
        examples: (text, answer) of others.
        text: what is asked about.
        temperature, seed: of the answer; the seed where the endpoint has one.
    """

    key: str
    system: str
    examples: tuple[tuple[str, str], ...]
    text: str
    temperature: float = 0.0
    seed: int | None = None

    @property
    def digest(self) -> str:
        """Of all that is asked, in hexadecimal: equal digests, equal questions."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    def as_text(self) -> str:
        """For a model that carries on a text: it is to write what comes behind the last "Output:"."""
        blocks = [f"Input:\n{text}\nOutput:\n{answer}" for text, answer in self.examples]
        return f"\n{MARKER}\n".join([self.system, *blocks, f"Input:\n{self.text}\nOutput:"])

    def messages(self) -> "list[ChatMessage]":
        """For a model that chats."""
        from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

        found: list[ChatMessage] = [ChatMessageSystem(content=self.system)]
        for text, answer in self.examples:
            found += [ChatMessageUser(content=text), ChatMessageAssistant(content=answer)]
        return [*found, ChatMessageUser(content=self.text)]


def load_model(name: str, base_url: str | None, arguments: Mapping[str, Any], shared: bool = True) -> "Model":
    """The model "provider/name" of inspect-ai's, or of ours.

    Args:
        shared: the one that inspect-ai keeps for all who ask, which nobody may close; else one of one's own.

    Raises:
        InputError: it cannot be had.
    """
    with input_errors(f"the model {name}"):
        from inspect_ai.model import get_model

        from icl_runner import providers  # noqa: F401  (registers ours, installed or not)

        try:
            return get_model(name, base_url=base_url, memoize=shared, **arguments)
        except InputError:
            raise
        except (ValueError, TypeError, ImportError) as error:
            raise InputError(f"the model {name}: {error}") from error


def check_model(name: str, base_url: str | None, arguments: Mapping[str, Any], asked: bool) -> None:
    """That a model can be had, before what costs: of one in this process, that its files are there; else its provider,
    and, if it will be `asked`, its key.

    Raises:
        InputError: it cannot.
    """
    if name.startswith(EMBEDDED):
        from spae import frozen_lm

        frozen_lm.find(name.removeprefix(EMBEDDED))
    elif name.startswith(CONNECTOR):
        bundle.find(name.removeprefix(CONNECTOR))
    else:
        try:
            load_model(name, base_url, arguments)
        except InputError as error:
            # What else is missing, a key or a package, a plan does without.
            if asked or isinstance(error.__cause__, ValueError):
                raise


def ask(
    model: "Model",
    questions: Sequence[Question],
    answers: AnswerFile,
    what: str,
    *,
    max_connections: int | None = None,
    max_retries: int = MAX_RETRIES,
) -> dict[str, str]:
    """Put the questions that have no answer yet to the model; each answer is in the file as soon as it is there.

    Args:
        what: is done, for those who wait.
        max_connections: calls at the same time; the provider's own number by default.
        max_retries: of one call.

    Returns:
        Of each question whose call failed for good its key, and the reason.
    """
    left = [one for one in questions if one.digest not in answers]
    failures: dict[str, str] = {}
    if left:
        with Progress(len(questions), what, "answer", len(questions) - len(left)) as progress, quiet():
            coroutine = _ask(model, left, answers, failures, progress, max_connections, max_retries)
            asyncio.run(coroutine)
    return failures


def calls_failed(failures: Mapping[str, str]) -> str:
    """In one line, with the first reason."""
    calls = f"{len(failures)} call{'' if len(failures) == 1 else 's'} failed"
    return f"{calls} ({next(iter(failures.values()))}): the same command tries again what failed"


async def _ask(
    model: "Model",
    questions: Sequence[Question],
    answers: AnswerFile,
    failures: dict[str, str],
    progress: Progress,
    max_connections: int | None,
    max_retries: int,
) -> None:
    waiting = iter(questions)

    async def work() -> None:
        for question in waiting:
            try:
                answer = await _put(model, question, max_retries)
            # Whatever a provider's client raises: the others are asked all the same.
            except Exception as error:
                failures[question.key] = " ".join(str(error).split()) or type(error).__name__
            else:
                answers.add(question.key, question.digest, answer)
            progress.update()

    async with model:
        connections = max_connections or model.api.max_connections()
        await asyncio.gather(*(work() for _ in range(connections)))


async def _put(model: "Model", question: Question, max_retries: int) -> Answer:
    from inspect_ai.model import ChatMessageUser, GenerateConfig

    from icl_runner import spelling

    config = GenerateConfig(
        temperature=question.temperature,
        seed=question.seed,
        max_retries=max_retries,
        max_tokens=CHAT_MAX_TOKENS,
        attempt_timeout=ATTEMPT_SECONDS,
    )
    if constraints.supports(str(model)):
        config.max_tokens, config.stop_seqs, config.attempt_timeout = MAX_TOKENS, [MARKER], None
        output = await spelling.generate(model, [ChatMessageUser(content=question.as_text())], config)
        text = scoring.finished(output.completion, (MARKER,))
    else:
        output = await spelling.generate(model, question.messages(), config)
        text = output.completion.strip()
    return Answer(text, output.stop_reason in ("max_tokens", "model_length"))


@contextlib.contextmanager
def input_errors(what: str) -> Iterator[None]:
    """inspect-ai's complaints as ours, in one line without its markup.

    A private part of inspect-ai, in want of a public one: its commands catch this error themselves and print it with
    rich, so the package exports neither its class nor a base of it; a name of a model that it does not know, or a
    folder of logs that it does not take, is told in no other way.
    """
    from inspect_ai._util.error import PrerequisiteError
    from rich.text import Text

    try:
        yield
    except PrerequisiteError as error:
        message = " ".join(Text.from_markup(str(error.message)).plain.split())
        raise InputError(f"{what}: {message}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """inspect-ai without its habits: no lines on stdout, and no .env file of whatever folder this is read."""
    before = os.environ.get("PYTHON_DOTENV_DISABLED")
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if before is None:
            del os.environ["PYTHON_DOTENV_DISABLED"]
        else:
            os.environ["PYTHON_DOTENV_DISABLED"] = before
