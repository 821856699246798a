"""Cells of texts as tasks of inspect-ai: one solver that puts the calls of an item, one scorer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import collect

from icl_runner import constraints, spelling
from icl_runner.cells import EMBEDDED, Call, Item, TextCell
from icl_runner.prompts import CHAT_MAX_TOKENS, Prompt


def text_task(cell: TextCell, metadata: Mapping[str, Any]) -> Task:
    """The task of a cell, with `metadata` in its log."""
    return Task(
        name=cell.name,
        dataset=MemoryDataset([_sample(item, cell.photograph) for item in cell.items], name=cell.name),
        solver=ask(),
        scorer=score_answers(cell),
        metadata=dict(metadata),
    )


def _sample(item: Item, photograph: Callable[[str], str] | None) -> Sample:
    # A context that calls share is kept once: it is long.
    first = item.calls[0].prompt
    # For `inspect view` and the report: `ask` makes its own messages, and no model is sent this input.
    input: str | list[ChatMessage] = first.text
    if photograph is not None:
        picture = ContentImage(image=photograph(item.shown["query_key"]))
        input = [ChatMessageUser(content=[picture, ContentText(text=first.text)])]
    calls = [
        {
            "key": call.key,
            "query": call.prompt.query,
            "stop": list(call.prompt.stop),
            "max_tokens": call.max_tokens,
            "choices": list(call.choices),
            "system": call.system,
            "likelihoods": call.likelihoods,
        }
        | ({} if call.prompt.context == first.context else {"context": call.prompt.context})
        for call in item.calls
    ]
    return Sample(
        id=item.id,
        input=input,
        target=item.target,
        metadata={"shown": dict(item.shown), "context": first.context, "calls": calls},
    )


@solver
def ask() -> Solver:
    """Puts the calls of a sample to the model.

    To an endpoint one after the other, so that each finds the context in its caches. To the embedded model at once: it
    reads their context once, and does so before it turns to another sample's.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        calls, model = calls_of(state.metadata), get_model()
        if str(model).startswith(EMBEDDED):
            outputs = await collect(*(put(call, model) for call in calls))
        else:
            outputs = [await put(call, model) for call in calls]
        state.output = outputs[0]
        state.metadata["answers"] = answers_of(calls, outputs)
        return state

    return solve


def calls_of(metadata: Mapping[str, Any]) -> list[Call]:
    """The calls of a sample from its metadata; logs of before there were likelihoods say nothing of them."""
    return [
        Call(
            one["key"],
            Prompt(one.get("context", metadata["context"]), one["query"], tuple(one["stop"])),
            one["max_tokens"],
            tuple(one["choices"]),
            one["system"],
            one.get("likelihoods", False),
        )
        for one in metadata["calls"]
    ]


def answers_of(calls: Sequence[Call], outputs: Sequence[ModelOutput]) -> dict[str, str | dict[str, float]]:
    """What became of each call, by the key that its score has."""
    return {_key(call, output): _answer(call, output) for call, output in zip(calls, outputs, strict=True)}


def _answer(call: Call, output: ModelOutput) -> str | dict[str, float]:
    """The text; or of each choice how likely it is."""
    if not call.likelihoods:
        return output.completion
    log_probs = (output.metadata or {})[constraints.LOG_PROBS]
    return dict(zip(call.choices, log_probs, strict=True))


def _key(call: Call, output: ModelOutput) -> str:
    """An endpoint without constraints may have been asked for one: its answer must not stand in the same column."""
    free = call.choices and (output.metadata or {}).get("constrained") is False
    return call.key.replace("constrained", "instructed") if free else call.key


async def put(call: Call, model: Model) -> ModelOutput:
    """One call; raises what the provider raises."""
    question = ChatMessageUser(content=call.prompt.text)
    if constraints.supports(str(model)):
        config = GenerateConfig(max_tokens=call.max_tokens, temperature=0, stop_seqs=list(call.prompt.stop))
        if call.likelihoods:
            config.extra_body = constraints.Likelihoods(call.choices).extra_body()
        elif call.choices:
            config.extra_body = constraints.Choices(call.choices).extra_body()
        return await spelling.generate(model, [question], config)
    # Chat endpoints of several kinds refuse stop texts: what is behind them is cut off when it is scored. White
    # space around a message is no part of a continued text, as it would be above.
    config = GenerateConfig(max_tokens=CHAT_MAX_TOKENS, temperature=0)
    output = await spelling.generate(model, [ChatMessageSystem(content=call.system), question], config)
    output.completion = output.completion.strip()
    return output


@scorer(metrics={"*": [mean()]})
def score_answers(cell: TextCell) -> Scorer:
    """Scores a sample by the rule of its cell."""

    async def score(state: TaskState, target: Target) -> Score:
        answers = state.metadata["answers"]
        values, metadata = cell.score(state.metadata["shown"], answers)
        return Score(value=dict(values), answer=next(iter(answers.values())), metadata=metadata)

    return score
