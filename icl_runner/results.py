"""What was measured, as values: the samples of a cell, scored or failed. `icl_runner.report.logs` reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One episode or example that was scored: its figures, and what shows it again.

    Args:
        photograph: what it is about, a data URL; "" where the log has none.
    """

    id: str
    values: Mapping[str, float]
    metadata: Mapping[str, Any]
    photograph: str = ""


@dataclass(frozen=True)
class Failure:
    """One sample without a score, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class CellResult:
    """One setting of one task for one model, with all its samples by id."""

    task: str
    model: str
    setting: Mapping[str, Any]  # ways, shots, layers, ..: what the task calls its cell
    bundle: str
    bundle_sha256: str
    data: str
    data_fingerprint: str
    seed: int
    version: str
    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]
    expected: int  # samples that the run set out to take
    usage: Mapping[str, tuple[int, int]]  # model -> tokens of prompts, tokens of answers
    seconds: float  # wall time of all its logs together
    examples_sha256: str = ""  # of what is known of the images: labels, captions, names of classes, ..
    episodes_sha256: str = ""  # of the cell's episodes, if it has any
    # Endpoint, arguments and revision of the model, where logs of one name differ in them.
    provider: str = ""

    @property
    def missing(self) -> int:
        """Samples that were neither scored nor failed: the run is not over."""
        return max(0, self.expected - len(self.samples) - len(self.failures))
