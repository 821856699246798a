"""Cells of pictures as tasks of inspect-ai: a solver that decodes progressively, a scorer that decodes and compares."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import anyio
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from icl_runner import constraints, prompts, scoring, spelling
from icl_runner.cells import number
from icl_runner.pictures.drawing import OTHERS, Drawing, DrawingCell
from icl_runner.pictures.encoding import thumbnail
from icl_runner.pictures.progressive import Answer, Ask, Decoded, Weigh, decode, max_tokens
from icl_runner.prompts import CHAT_MAX_TOKENS, Prompt

# Where a sample's words are kept in the log, also of one that failed half-way.
DECODED = "decoded"


def drawing_task(cell: DrawingCell, metadata: Mapping[str, Any]) -> Task:
    """The task of a cell, with `metadata` in its log."""
    samples = [
        Sample(id=one.id, input=_shown(one), target=" ".join(one.target_words)) for one in cell.drawings
    ]
    return Task(
        name=cell.name,
        dataset=MemoryDataset(samples, name=cell.name),
        solver=draw_words(cell),
        scorer=score_pictures(cell),
        metadata=dict(metadata),
    )


def _shown(drawing: Drawing) -> list[ChatMessage]:
    """What is asked for, with its pictures: for `inspect view`. `draw_words` sends messages of its own."""
    content: list[Content] = [ContentText(text=drawing.shown)]
    for name, picture in (("input", drawing.input), ("target", drawing.target)):
        if picture is not None:
            content += [ContentText(text=name), ContentImage(image=thumbnail(picture))]
    return [ChatMessageUser(content=content)]


@solver
def draw_words(cell: DrawingCell) -> Solver:
    """Writes the words of each sample's picture, segment by segment.

    If a call fails, the words so far stay in the sample's store, and the sample fails with what the call raised: a
    picture completed by us must not be scored as the model's.
    """
    drawings = {drawing.id: drawing for drawing in cell.drawings}
    plan = cell.decoding.plan(cell.tokenizer.shape)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        drawing, model = drawings[str(state.sample_id)], get_model()
        decoded = await decode(
            plan,
            drawing.pairs,
            drawing.condition,
            cell.write,
            ask(model, cell),
            cell.tokenizer.vocabulary,
            samples=cell.decoding.samples,
            seed=number(cell.seed, drawing.id) >> 1,  # some endpoints take no more than 31 bits
            contrasted=cell.contrasted(drawing),
            weigh=weigh(model) if cell.decoding.choose == "agreement" else None,
            others=drawing.others()[:OTHERS],
        )
        reasons = [f"{asdict(segment)}: {error}" for segment, error in decoded.failures]
        kept = {"words": list(decoded.words), "repairs": dict(decoded.repairs), "failures": reasons}
        state.store.set(DECODED, kept)
        if decoded.failures:
            raise decoded.failures[0][1]
        state.output = ModelOutput.from_content(str(model), " ".join(decoded.words))
        return state

    return solve


def ask(model: Model, cell: DrawingCell) -> Ask:
    """Asks a model for words: held to the vocabulary where it can be, told how many where it cannot."""
    takes_constraints = constraints.supports(str(model))
    wants_log_probs = cell.decoding.samples > 1

    async def put(prompt: Prompt, against: Sequence[Prompt], count: int, seed: int) -> Answer:
        messages: list[ChatMessage] = [ChatMessageUser(content=prompt.text)]
        config = GenerateConfig(
            max_tokens=max_tokens(count),
            temperature=cell.decoding.temperature,
            # A greedy answer needs none.
            seed=seed if cell.decoding.temperature else None,
            logprobs=True if wants_log_probs else None,
        )
        if takes_constraints:
            config.stop_seqs = list(prompt.stop)
            others = tuple(one.text for one in against)
            words = constraints.Words(count, cell.bundle, others, cell.decoding.contrast)
            config.extra_body = words.extra_body()
            output = await spelling.generate(model, messages, config)
            return Answer(output.completion, _mean_log_prob(output))
        # As in the tasks with text answers: room to think, and no stop texts, which several endpoints refuse.
        config.max_tokens = CHAT_MAX_TOKENS + max_tokens(count)
        messages.insert(0, ChatMessageSystem(content=prompts.chat_words(count)))
        output = await spelling.generate(model, messages, config)
        return Answer(scoring.finished(output.completion.strip(), prompt.stop), _mean_log_prob(output))

    return put


def weigh(model: Model) -> Weigh:
    """Asks a model how likely texts are behind a prompt."""

    async def put(prompt: Prompt, texts: Sequence[str]) -> list[float]:
        longest = max(len(text.split()) for text in texts)
        body = constraints.Likelihoods(tuple(texts)).extra_body()
        config = GenerateConfig(max_tokens=max_tokens(longest), temperature=0, extra_body=body)
        output = await spelling.generate(model, [ChatMessageUser(content=prompt.text)], config)
        return (output.metadata or {})[constraints.LOG_PROBS]

    return put


def _mean_log_prob(output: ModelOutput) -> float | None:
    log_probs = output.choices[0].logprobs if output.choices else None
    if log_probs is None or not log_probs.content:
        return None
    return sum(one.logprob for one in log_probs.content) / len(log_probs.content)


@scorer(metrics={"*": [mean()]})
def score_pictures(cell: DrawingCell) -> Scorer:
    """Decodes a sample's words and those of its controls, and compares the pictures with the target."""
    drawings = {drawing.id: drawing for drawing in cell.drawings}

    async def score(state: TaskState, target: Target) -> Score:
        kept = state.store.get(DECODED)
        decoded = Decoded(tuple(kept["words"]), kept["repairs"], ())
        drawing = drawings[str(state.sample_id)]
        # Off the event loop: other samples' calls go on meanwhile.
        values, metadata = await anyio.to_thread.run_sync(cell.score, drawing, decoded)
        return Score(value=dict(values), answer=metadata["words"], metadata=metadata)

    return score
