"""What a run would ask and cost, without asking: the dry run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from icl_runner import constraints
from icl_runner.cells import EMBEDDED, IN_PROCESS, Call, Cell
from icl_runner.pictures.progressive import approximate_tokens
from icl_runner.prices import Prices
from spae.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """Of a cell: its calls, and those of them that ask how likely texts are; tokens of all prompts, and at most of all
    answers."""

    cell: Cell
    calls: int
    likelihoods: int
    read: int
    written: int


def estimate(cells: Sequence[Cell], model: str) -> list[Estimate]:
    """Calls and tokens of every cell; exact for the embedded model's prompts, else about one token a word."""
    count = _counter(model)
    known: dict[str, int] = {}
    estimates = []
    for cell in cells:
        calls = likelihoods = read = written = 0
        for call in cell.calls():
            texts = [_read_text(call, model), *(one.text for one in call.against)]
            known |= {text: count(text) for text in texts if text not in known}
            # For likelihoods an embedded model writes nothing; an endpoint is held to one text after the other.
            embedded = model.startswith(IN_PROCESS)
            requests = len(call.choices) if call.likelihoods and not embedded else 1
            calls += requests
            likelihoods += requests if call.likelihoods else 0
            read += requests * sum(known[text] for text in texts)
            written += 0 if call.likelihoods and embedded else requests * call.max_tokens
        estimates.append(Estimate(cell, calls, likelihoods, read, written))
    return estimates


def describe(cells: Sequence[Cell], model: str, prices: Prices | None = None) -> Iterator[str]:
    """The dry run's text, line by line: what all of it takes, then of each cell its first prompt.

    Raises:
        InputError: prices without this model.
    """
    if prices is not None and model not in prices.by_model:
        raise InputError(
            f"the prices are of {', '.join(sorted(prices.by_model)) or 'no model'}; wanted one of {model}"
        )
    estimates = estimate(cells, model)
    yield "== calls, tokens of prompts, tokens of answers at most"
    read, written = sum(one.read for one in estimates), sum(one.written for one in estimates)
    rows = [(one.calls, one.read, one.written, one.cell.name) for one in estimates]
    rows.append((sum(one.calls for one in estimates), read, written, "all"))
    for calls, of_prompts, of_answers, name in rows:
        yield f"{calls:>9,} {of_prompts:>13,} {of_answers:>11,}  {name}"
    if likelihoods := sum(one.likelihoods for one in estimates):
        yield f"{likelihoods:>9,} of these calls ask how likely texts are"
    if model.startswith(EMBEDDED):
        yield "prompts counted by the model's tokenizer; contexts that repeat are read once for all"
    else:
        yield "estimated: a token for each word, sign and line break; no caches of prompts, no thinking"
    if prices is not None:
        price = prices.by_model[model]
        money = f"{prices.of(model, read, written):,.2f} {prices.currency}".strip()
        yield f"cost at most {money}, at {price['input']:g} and {price['output']:g} per million tokens"
    for one in estimates:
        first = next(iter(one.cell.calls()))
        yield f"== {one.cell.name}: the first of {one.calls:,} calls, of {len(one.cell.ids):,} samples"
        if not constraints.supports(model):
            yield f"[system] {first.system}"
        yield first.prompt.text


def _read_text(call: Call, model: str) -> str:
    return call.prompt.text if constraints.supports(model) else f"{call.system}\n{call.prompt.text}"


def _counter(model: str) -> Callable[[str], int]:
    if not model.startswith(EMBEDDED):
        return approximate_tokens
    from spae import frozen_lm

    loaded = frozen_lm.load(model.removeprefix(EMBEDDED))
    return lambda text: len(loaded.encode(text))
