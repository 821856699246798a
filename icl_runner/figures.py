"""From the samples of a cell to its figures: means, 95 % intervals, and comparisons with controls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icl_runner.results import CellResult
from icl_runner.scoring import mcnemar, normal_interval, wilson


@dataclass(frozen=True)
class Measure:
    """One thing that is measured: its key in the logs, and how it is shown.

    Args:
        share: 0 or 1 for each sample, so that the interval is Wilson's.
        floor: what blind chance gets, as it is shown, and why; None where that depends on the setting, or is nothing.
    """

    key: str
    title: str
    scale: float = 1.0
    decimals: int = 3
    higher_is_better: bool = True
    share: bool = False
    floor: tuple[str, str] | None = None


@dataclass(frozen=True)
class Figure:
    """A mean over samples with its 95 % interval, in the units of `measure` before scaling.

    Args:
        low, high: None where there is no interval.
        not_beaten: this is a control, and the result it stands under is not better than it: the 95 % interval of the
            mean difference, sample by sample, reaches zero or lies beyond.
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


@dataclass(frozen=True)
class Control:
    """What is measured beside a result, to compare it with.

    Args:
        suffix: of the measures' keys in the logs.
        label: of its row.
        ceiling: it is there to be fallen short of, not to be beaten.
    """

    suffix: str
    label: str
    ceiling: bool = False


# Of every task whose answers are texts.
OTHER = Control("_other", "control: words of another image")
# Of those that ask about one image, if asked for.
BLIND = Control("_blind", "control: no image")


def figure(cell: CellResult, measure: Measure, control: Control | None = None) -> Figure | None:
    """The mean of `measure` over the cell's samples that have it, or of a control of it.

    None if no sample has it. For shares the interval is Wilson's, else mean -+ 1.96 s / sqrt(n).
    """
    found = _by_sample(cell, measure.key + (control.suffix if control else ""))
    if not found:
        return None
    values = list(found.values())
    bounds = wilson(int(sum(values)), len(values)) if measure.share else interval(values)
    is_control = control is not None and not control.ceiling
    beaten = not is_control or is_beaten(measure, _by_sample(cell, measure.key), found)
    return Figure(measure, _mean(values), *bounds, len(values), not beaten)


def difference(measure: Measure, one: CellResult, other: CellResult) -> Figure | None:
    """What one cell has more than another, sample by sample: the mean difference with its interval, in the units of the
    measure.

    None if no sample has the measure in both.
    """
    first, second = _by_sample(one, measure.key), _by_sample(other, measure.key)
    values = [first[key] - second[key] for key in first if key in second]
    return Figure(measure, _mean(values), *interval(values), len(values)) if values else None


def _by_sample(cell: CellResult, key: str) -> dict[str, float]:
    return {sample.id: sample.values[key] for sample in cell.samples if key in sample.values}


def _mean(values: Sequence[float]) -> float:
    # fsum refuses infinities: PSNR of an exact copy.
    return (math.fsum(values) if all(map(math.isfinite, values)) else sum(values)) / len(values)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The normal 95 % interval of the mean; infinite where a value is."""
    return normal_interval(values) if all(map(math.isfinite, values)) else (-math.inf, math.inf)


def finite(value: float | None) -> float | None:
    """As JSON has it: None for what is no finite number."""
    return value if value is not None and math.isfinite(value) else None


def ratio_of_means(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """mean(above) / mean(below) of pairs, the latter above zero, and the bounds of its 95 % interval.

    By the delta method: the ratio R has the standard error s / (mean(below) sqrt(n)), s the deviation of
    above - R below over the pairs. Infinite bounds for one pair.
    """
    ratio = _mean(above) / _mean(below)
    low, high = normal_interval([one - ratio * other for one, other in zip(above, below, strict=True)])
    # The mean of what is between is zero.
    return ratio, ratio + low / _mean(below), ratio + high / _mean(below)


def is_beaten(measure: Measure, result: Mapping[str, float], control: Mapping[str, float]) -> bool:
    """Whether a result is better than its control, both by the ids of their samples: the 95 % interval of the mean
    difference lies above zero. Of a share, whose differences may all be equal, McNemar's exact test has to say so, too
    (p < .05)."""
    sign = 1 if measure.higher_is_better else -1
    differences = [sign * (result[key] - control[key]) for key in result if key in control]
    if not differences or interval(differences)[0] <= 0:
        return False
    better, worse = sum(one > 0 for one in differences), sum(one < 0 for one in differences)
    return not measure.share or mcnemar(better, worse) < 0.05
