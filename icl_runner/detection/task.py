"""Tasks whose answers say what is where: what `detect` and `propose` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from icl_runner.detection import records
from icl_runner.detection.average_precision import Precision, average_precision, f1
from icl_runner.detection.detections import REASONS, Detection, parse_rate
from icl_runner.detection.instructions import Instruction
from icl_runner.dice import Dice
from icl_runner.figures import OTHER, Control, Figure, Measure, figure
from icl_runner.options import Count, NameOrPath, whole, wholes
from icl_runner.results import CellResult
from icl_runner.texts.task import TextTask
from spae.errors import InputError

# It takes JAX along, which takes seconds to import.
if TYPE_CHECKING:
    from icl_runner.data.scene_sets import SceneSet

AP, UNSCORED = Measure("ap", "AP"), Measure("ap", "unscored AP")
AP50 = Measure("ap50", "AP at IoU .5")
F1 = Measure("f1", "F1 at IoU .5")
READ = Measure("read", "tuples read, %", 100, 1)
# Of the logs' keys: "" is what the model found.
ORACLE = Control("_oracle", "the right answers, as they can be written", ceiling=True)
RANDOM = Control("_random", "control: random answers, as many as there are things")


@dataclass(frozen=True, kw_only=True)
class DetectionTask(TextTask):
    """A task about composed scenes, whose things have exact boxes and outlines."""

    measures: ClassVar[tuple[Measure, ...]] = (AP, UNSCORED, AP50, F1, READ)
    controls = (ORACLE, RANDOM, OTHER)

    # openmoji or tuxpaint, if installed; or labelled images, four to a mosaic
    data: NameOrPath = "photographs"
    classes: Annotated[int, whole(1)] = 8  # in the class set; scenes are of these alone
    shots: Annotated[tuple[int, ...], wholes(0)] = (2,)  # examples in context
    count: Count = 50  # images to ask about

    def examples(self) -> "SceneSet":
        from icl_runner.data.scene_sets import SceneSet, make_scenes, sprites
        from icl_runner.data.scenes import Composition

        if self.control and self.count < 2:
            raise InputError(f"{self.name}: wanted 2 images at least for the control, or --no-control")
        taken = sprites(self.data, self.split)
        if self.classes > len(taken.names):
            raise InputError(
                f"wanted at most the {len(taken.names)} classes of {taken.name}, got {self.classes}"
            )
        names = sorted(Dice("class set", self.seed).choose("names", taken.names, self.classes))
        composition = Composition(least=min(2, self.classes), most=min(4, self.classes))
        scenes = make_scenes(taken, self.seed, max(self.shots) + self.count, composition, names)

        def identity() -> str:
            return f"things {taken.identity()} {composition} {self.seed} {names}"

        return SceneSet(f"{taken.name}, {self.classes} classes", scenes, names, identity)

    @classmethod
    def figures(cls, result: CellResult, control: Control | None = None) -> list[Figure]:
        """AP is over all scenes, and has no interval: it is compared by the F1 of each scene."""
        suffix = control.suffix if control else ""
        samples = [sample for sample in result.samples if suffix in sample.metadata["found"]]
        by_scene = figure(result, F1, control)
        if by_scene is None:
            return []
        reached, ours = (_precision([one.metadata for one in samples], key) for key in (suffix, ""))
        # One column for a result and what stands below it: the oracle's order does not matter, nor does chance's.
        ap = AP if ours.scored else UNSCORED
        found = [
            Figure(measure, value, None, None, len(samples), by_scene.not_beaten)
            for measure, value in ((ap, reached.ap), (AP50, reached.ap50))
            if value is not None
        ]
        more = [
            figure(result, measure, control) for measure in cls.measures
        ]  # AP and READ are not in the values
        return found + [one for one in more if one] + _faults([one.metadata for one in samples], suffix)


def scored(
    shown: Mapping[str, Any],
    answers: Mapping[str, str],
    instruction: Instruction,
    found: Mapping[str, Sequence[Detection]],
    faults: Mapping[str, Mapping[str, int]],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Values and metadata of a sample whose `found` and counted `faults` are given by the suffix of their row."""
    scene = records.layout(shown["scene"])
    values = {f"{F1.key}{suffix}": f1(scene, of_row, instruction) for suffix, of_row in found.items()}
    metadata = {key: shown[key] for key in ("scene", "classes", "truth", "question", "words", "query_key")}
    # One line each: that is what the report shows.
    metadata["answers"] = {key: " ".join(answer.split()) for key, answer in answers.items()}
    metadata["found"] = {key: [records.of_detection(one) for one in of_row] for key, of_row in found.items()}
    metadata["faults"] = {key: dict(counts) for key, counts in faults.items()}
    return values, metadata


def _precision(samples: Sequence[Mapping[str, Any]], suffix: str) -> Precision:
    outlines = any("polygons" in thing for thing in samples[0]["scene"]["things"])
    asked = Instruction(task="segment" if outlines else "detect", classes=tuple(samples[0]["classes"]))
    scenes = [records.layout(sample["scene"]) for sample in samples]
    found = [[records.detection(one) for one in sample["found"][suffix]] for sample in samples]
    if any(one.score is None for of_scene in found for one in of_scene):  # no ranks, or not of all
        found = [[replace(one, score=None) for one in of_scene] for of_scene in found]
    return average_precision(scenes, found, asked)


def _faults(samples: Sequence[Mapping[str, Any]], suffix: str) -> list[Figure]:
    """The share of tuples that were read, and how many of each scene's were refused, by their reasons."""
    counts = [sample["faults"].get(suffix, {}) for sample in samples]
    rate = parse_rate(counts)
    if rate is None:
        return []
    figures = [Figure(READ, rate, None, None, len(samples))]
    for reason in REASONS:
        if refused := sum(one.get(reason, 0) for one in counts):
            of_reason = Measure(f"refused_{reason}", f"refused a scene: {reason}", decimals=2)
            figures.append(Figure(of_reason, refused / len(samples), None, None, len(samples)))
    return figures
