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

from icl_runner import constraints, shown, spelling, together
from icl_runner.cells import IN_PROCESS, Call, Item, TextCell, calls_to_json
from icl_runner.prompts import CHAT_MAX_TOKENS


def text_task(cell: TextCell, metadata: Mapping[str, Any], how: Solver | None = None) -> Task:
    """The task of a cell, with `metadata` in its log. `how`: its calls are put; by `ask` if not told."""
    return Task(
        name=cell.name,
        dataset=MemoryDataset([_sample(item, cell.photograph) for item in cell.items], name=cell.name),
        solver=how or ask(cell),
        scorer=score_answers(cell),
        metadata=dict(metadata),
    )


def _sample(item: Item, photograph: Callable[[str], str] | None) -> Sample:
    # For `inspect view` and the report: `ask` makes its own messages, and no model is sent this input.
    first = item.calls[0].prompt.text
    input: str | list[ChatMessage] = first
    if photograph is not None:
        picture = ContentImage(image=photograph(item.shown["query_key"]))
        input = [ChatMessageUser(content=[picture, ContentText(text=first)])]
    return Sample(id=item.id, input=input, target=item.target, metadata={"shown": dict(item.shown)})


def ask(cell: TextCell) -> Solver:
    """Puts the calls of each sample to the model, and writes both them and what came into its metadata, with which it
    can be scored and asked again. (Not before: inspect-ai copies metadata over and over.)

    To an endpoint one after the other, so that each finds the context in its caches. To the embedded model at once: it
    reads their context once, and does so before it turns to another sample's.
    """
    items = {item.id: item for item in cell.items}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        item, model = items[str(state.sample_id)], get_model()
        if together.takes(str(model)):
            outputs = await put_together(item.calls, model)
        elif str(model).startswith(IN_PROCESS):
            outputs = await collect(*(put(call, model, cell.picture) for call in item.calls))
        else:
            outputs = [await put(call, model, cell.picture) for call in item.calls]
        state.output = outputs[0]
        state.metadata |= calls_to_json(item.calls) | {"answers": answers_of(item.calls, outputs)}
        return state

    # Without arguments: by those of solvers, too, inspect-ai knows a run again, and earlier ones had none.
    @solver(name="ask")
    def without_arguments() -> Solver:
        return solve

    return without_arguments()


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


async def put(
    call: Call, model: Model | None = None, picture: Callable[[str], str] | None = None
) -> ModelOutput:
    """One call, to the model of the running task by default; raises what the provider raises. `picture`: of its cell,
    see `icl_runner.shown`."""
    model = model or get_model()
    question = ChatMessageUser(content=shown.content(call.prompt.text, picture))
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


async def put_together(calls: Sequence[Call], model: Model) -> list[ModelOutput]:
    """All calls of a sample as one of inspect's; raises what the provider raises."""
    question = ChatMessageUser(content=calls[0].prompt.text)
    config = GenerateConfig(temperature=0, extra_body=together.extra_body(calls))
    return together.parted(await spelling.generate(model, [question], config))


@scorer(metrics={"*": [mean()]})
def score_answers(cell: TextCell) -> Scorer:
    """Scores a sample by the rule of its cell."""

    async def score(state: TaskState, target: Target) -> Score:
        answers = state.metadata["answers"]
        values, metadata = cell.score(state.metadata["shown"], answers)
        return Score(value=dict(values), answer=next(iter(answers.values())), metadata=metadata)

    return score
