"""From the samples of a cell to its figures: means, 95 % intervals, and comparisons with controls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icl_runner.report.results import Cell
from icl_runner.scoring import caption_scores, normal_interval, wilson


@dataclass(frozen=True)
class Measure:
    """One thing that is measured: its key in the logs, and how it is shown.

    `share`: 0 or 1 for each sample, so that the interval is Wilson's.
    """

    key: str
    title: str
    scale: float = 1.0
    decimals: int = 3
    higher_is_better: bool = True
    share: bool = False


@dataclass(frozen=True)
class Figure:
    """A mean over samples with its 95 % interval, in the units of `measure` before scaling.

    `low`, `high`: None where there is no interval. `not_beaten`: this is a control, and the result it stands
    under is not better than it: the 95 % interval of the mean difference, sample by sample, reaches zero or lies
    beyond.
    """

    measure: Measure
    mean: float
    low: float | None
    high: float | None
    count: int
    not_beaten: bool = False

    def text(self) -> str:
        """The scaled mean."""
        return self._number(self.mean)

    def interval(self) -> str:
        """The scaled bounds, such as "60.1–72.9" or "−0.2 to 0.1"; "" where there are none, or no finite ones."""
        if self.low is None or self.high is None or not math.isfinite(self.high - self.low):
            return ""
        return f"{self._number(self.low)}{' to ' if self.low < 0 else '–'}{self._number(self.high)}"

    def _number(self, value: float) -> str:
        if not math.isfinite(value):
            return "∞" if value > 0 else "−∞" if value < 0 else "undefined"
        return f"{value * self.measure.scale:.{self.measure.decimals}f}".replace("-", "−")


OPEN = Measure("open", "open-ended exact match", 100, 1, share=True)
CONSTRAINED = Measure("constrained", "constrained to the names", 100, 1, share=True)
# Of chat models, whose decoding cannot be restricted: they are told the names instead.
INSTRUCTED = Measure("instructed", "told to choose among the names", 100, 1, share=True)
DIGIT = Measure("digit", "digit recognised, %", 100, 1, share=True)
PIXELS = (
    Measure("psnr", "PSNR, dB", decimals=2),
    Measure("ssim", "SSIM"),
    Measure("stlpips", "STLPIPS (lower is better)", higher_is_better=False),
)
CAPTION = (Measure("bleu4", "BLEU-4"), Measure("rouge_l", "ROUGE-L"), Measure("cider", "CIDEr"))
MEASURES: Mapping[str, tuple[Measure, ...]] = {
    "classify": (OPEN, CONSTRAINED, INSTRUCTED),
    "vqa": (
        Measure("vqa", "VQA accuracy, %", 100, 1),
        Measure("exact", "exact match, %", 100, 1, share=True),
    ),
    "interpret": (Measure("named", "class named, %", 100, 1, share=True),),
    "generate": (DIGIT, *PIXELS),
    "transform": PIXELS,
}


def figures(cell: Cell, suffix: str = "") -> list[Figure]:
    """Of all that the cell's task measures, what its samples have; of a control by the suffix of its keys."""
    if cell.task == "caption":
        return _caption_figures(cell, suffix)
    found = [figure(cell, measure, suffix) for measure in MEASURES[cell.task]]
    return [one for one in found if one]


def figure(cell: Cell, measure: Measure, suffix: str = "") -> Figure | None:
    """The mean of `measure` over the cell's samples that have it, or of its control named by `suffix`.

    None if no sample has it. For shares the interval is Wilson's, else mean -+ 1.96 s / sqrt(n).
    """
    of_control = _by_sample(cell, measure.key + suffix)
    if not of_control:
        return None
    values = list(of_control.values())
    bounds = wilson(int(sum(values)), len(values)) if measure.share else _interval(values)
    # What a target's own words decode to is a ceiling, not a control.
    is_control = suffix not in ("", "_oracle")
    not_beaten = is_control and _not_beaten(measure, _by_sample(cell, measure.key), of_control)
    return Figure(measure, _mean(values), *bounds, len(values), not_beaten)


def _caption_figures(cell: Cell, suffix: str) -> list[Figure]:
    """Over the corpus. BLEU-4 of a corpus is no mean over captions: it is compared by that of each, and has no
    interval."""
    samples = [sample for sample in cell.samples if f"answer{suffix}" in sample.metadata]
    if not samples:
        return []
    references = [sample.metadata["references"] for sample in samples]
    total, each = caption_scores([sample.metadata[f"answer{suffix}"] for sample in samples], references)
    _, each_result = caption_scores([sample.metadata["answer"] for sample in samples], references)
    ids = [sample.id for sample in samples]
    found = []
    for measure in CAPTION:
        key = measure.key
        low, high = (None, None) if key == "bleu4" else _interval(each[key])
        result, control = (dict(zip(ids, values[key], strict=True)) for values in (each_result, each))
        not_beaten = bool(suffix) and _not_beaten(measure, result, control)
        found.append(Figure(measure, total[key], low, high, len(samples), not_beaten))
    return found


def _by_sample(cell: Cell, key: str) -> dict[str, float]:
    return {sample.id: sample.values[key] for sample in cell.samples if key in sample.values}


def _mean(values: Sequence[float]) -> float:
    # fsum refuses infinities: PSNR of an exact copy.
    return (math.fsum(values) if all(map(math.isfinite, values)) else sum(values)) / len(values)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    return normal_interval(values) if all(map(math.isfinite, values)) else (-math.inf, math.inf)


def _not_beaten(measure: Measure, result: Mapping[str, float], control: Mapping[str, float]) -> bool:
    sign = 1 if measure.higher_is_better else -1
    differences = [sign * (result[key] - control[key]) for key in result if key in control]
    return not differences or not _interval(differences)[0] > 0
