"""Tuples asked of a model: written freely, in a grammar, or chosen one after the other in the skeleton of the answer.

With them come the log-probabilities of their tokens, where the endpoint gives those: what detections are ranked by.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, ModelOutput, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from icl_runner import constraints, shown, spelling
from icl_runner.cells import Call, TextCell, calls_to_json
from icl_runner.constraints import Choices, Pattern
from icl_runner.detection.detections import LOG_PROBS
from icl_runner.detection.instructions import Instruction, fill
from icl_runner.texts.asking import put

Manner = Literal["free", "grammar", "skeleton"]
Picture = Callable[[str], str]  # of a cell, see `icl_runner.shown`


@solver
def ask(cell: TextCell, manner: Manner, asked: Mapping[str, tuple[Instruction, int]]) -> Solver:
    """Puts the calls of a sample to the model, one after the other. Those that are answered freely are written into its
    metadata, with which it can be asked again; a grammar or a skeleton is no part of a call.

    Args:
        cell: whose items there are.
        manner: how answers are written.
        asked: id of an item -> its instruction, and how many tuples a skeleton has.
    """
    items = {item.id: item for item in cell.items}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model, answers = get_model(), {}
        calls = items[str(state.sample_id)].calls
        instruction, count = asked[str(state.sample_id)]
        for call in calls:
            if manner == "skeleton":
                text, log_probs = await _fill(model, call, cell.picture, instruction.skeleton(count))
            else:
                pattern = Pattern(instruction.pattern()) if manner == "grammar" else None
                output = await _write(model, call, cell.picture, pattern)
                text, log_probs = output.completion, _log_probs(output)
            answers[call.key] = text
            if log_probs is not None:
                answers[call.key + LOG_PROBS] = json.dumps(log_probs)
        state.metadata |= {"answers": answers} | (calls_to_json(calls) if manner == "free" else {})
        state.output = ModelOutput.from_content(str(model), answers[calls[0].key])
        return state

    return solve


async def _write(model: Model, call: Call, picture: Picture | None, pattern: Pattern | None) -> ModelOutput:
    if not constraints.supports(str(model)):
        return await put(call, model, picture)
    config = GenerateConfig(
        max_tokens=call.max_tokens, temperature=0, stop_seqs=list(call.prompt.stop), logprobs=True
    )
    if pattern is not None:
        config.extra_body = pattern.extra_body()
    return await spelling.generate(
        model, [ChatMessageUser(content=shown.content(call.prompt.text, picture))], config
    )


async def _fill(
    model: Model, call: Call, picture: Picture | None, skeleton: Sequence[str | Choices]
) -> tuple[str, list[list[Any]] | None]:
    """An answer whose every choice is asked for behind what stands before it; and its pieces with their
    log-probabilities, 0 of what is given.

    A choice is offered with the sign behind it: so no number is the beginning of another. A space before it belongs to
    the choice, not to the prompt, as it does to the words of whole texts (`constraints.spaced` puts it there).

    Raises:
        InputError: the endpoint does not keep to the choices. Else what the provider raises.
    """
    chosen: list[str] = []
    pieces: list[tuple[str, float | None]] = []
    for part, behind in zip(skeleton, [*skeleton[1:], ""], strict=True):
        if isinstance(part, str):
            pieces.append((part, 0.0))
            continue
        assert isinstance(behind, str)  # a tuple ends in a bracket
        end = behind[0]
        config = GenerateConfig(max_tokens=call.max_tokens, temperature=0, logprobs=True)
        config.extra_body = Choices(tuple(f"{one}{end}" for one in part.texts)).extra_body()
        text = (call.prompt.text + "".join(piece for piece, _ in pieces)).removesuffix(" ")
        question = ChatMessageUser(content=shown.content(text, picture))
        output = await spelling.generate(model, [question], config)
        chosen.append(output.completion.strip().removesuffix(end))
        found = _log_probs(output)
        pieces.append((chosen[-1], None if found is None else sum(value for _, value in found)))
    text = fill(skeleton, chosen)  # which refuses what is none of the choices
    known = [[piece, value] for piece, value in pieces if value is not None]
    return text, known if len(known) == len(pieces) else None


def _log_probs(output: ModelOutput) -> list[list[Any]] | None:
    given = output.choices[0].logprobs if output.choices else None
    if given is None or not given.content:
        return None
    return [[one.token, one.logprob] for one in given.content]
