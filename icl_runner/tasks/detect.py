"""Detection by text (VisionLLM's interface): a class set and a format in words go in, tuples of numbers come out."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from icl_runner import constraints, prompts
from icl_runner.cells import Call, Item, TextCell
from icl_runner.data.images import Images
from icl_runner.detection import records
from icl_runner.detection.average_precision import oracle, random_answer
from icl_runner.detection.detections import LOG_PROBS, parse, scores
from icl_runner.detection.instructions import Instruction
from icl_runner.detection.locations import Locations
from icl_runner.detection.skeletons import SkeletonCell
from icl_runner.detection.task import ORACLE, RANDOM, DetectionTask, scored
from icl_runner.dice import Dice
from icl_runner.figures import OTHER
from icl_runner.options import Switch, whole
from icl_runner.task import task
from spae.errors import InputError

# They take seconds to import.
if TYPE_CHECKING:
    import inspect_ai

    from icl_runner.data.scene_sets import SceneSet
    from icl_runner.data.scenes import Scene


@task
@dataclass(frozen=True, kw_only=True)
class Detect(DetectionTask):
    """Detection by text: a class set, ranges and a format in words; tuples of numbers, read strictly.

    example: spae-icl run detect --model spae-lm/default --data openmoji --classes 4 --answers skeleton
    """

    title = "Detection by text"

    # detect: boxes; ground: the box of one thing; segment: outlines
    mode: Literal["detect", "ground", "segment"] = "detect"
    # free: as the model writes; grammar: held to the format (completions with a dialect); skeleton: the format is
    # filled in, number by number, which tells how many things there are
    answers: Literal["free", "grammar", "skeleton"] = "free"
    bins: Annotated[int, whole(2)] = 1000  # steps from edge to edge
    offsets: Switch = False  # count from the middle of the thing
    tokens: Switch = False  # spell <p37> and <c2>
    points: Annotated[int, whole(3)] = 8  # of an outline
    wording: Annotated[int, whole(0)] = 0  # of the instruction

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points != Detect.points and self.mode != "segment":
            raise InputError(f"detect: --points are of an outline: leave it out with --mode {self.mode}")

    def cells(self, images: Images) -> list[TextCell]:
        self._check()
        made = []
        for shots, layers in itertools.product(self.shots, self.layers):
            cell = self.cell(
                f"detect-{self.mode}-{self.answers}-{shots}shot-layers{layers}",
                self._setting(shots, layers, images),
                self._items(images, shots, layers),
                images,
            )
            made.append(SkeletonCell(**vars(cell)) if self.answers == "skeleton" else cell)
        return made

    def build(self, cell: TextCell, metadata: Mapping[str, Any]) -> "inspect_ai.Task":
        from icl_runner.detection.asking import ask
        from icl_runner.texts.asking import text_task

        asked = {}
        for item in cell.items:
            instruction = records.instruction(item.shown["instruction"])
            asked[item.id] = (instruction, len(item.shown["scene"]["things"]))
        return text_task(cell, metadata, ask(cell, self.answers, asked))

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """What the model found, what its controls did, and what can be written at best; the F1 of each."""
        scene, instruction = records.layout(shown["scene"]), records.instruction(shown["instruction"])
        found = {
            ORACLE.suffix: oracle([scene], instruction)[0].detections,
            RANDOM.suffix: random_answer(scene, instruction, shown["query_key"]).detections,
        }
        faults = {}
        texts = {key: answer for key, answer in answers.items() if not key.endswith(LOG_PROBS)}
        for key, answer in texts.items():
            suffix = key.removeprefix("answer")
            read = parse(answer, instruction, scene.size)
            ranks = scores(answer, answers.get(key + LOG_PROBS), [one.span for one in read.detections])
            found[suffix] = tuple(
                replace(one, score=None if ranks is None else ranks[place])
                for place, one in enumerate(read.detections)
            )
            faults[suffix] = read.counts()
        return scored(shown, texts, instruction, found, faults)

    def _check(self) -> None:
        """Refuses a way of answering that the model does not have."""
        endpoint = self.model.startswith("completions/")
        dialect = self.model_args.get("dialect", "none") if endpoint else None
        if self.answers == "skeleton" and (not constraints.supports(self.model) or dialect == "none"):
            raise InputError(
                f"detect: {self.model} cannot be held to choices, which --answers skeleton needs: leave it out, or "
                "give an endpoint's -M dialect"
            )
        if self.answers == "grammar" and dialect in (None, "none"):
            raise InputError(
                "detect: --answers grammar needs completions/NAME with -M dialect=llama.cpp or vllm, got "
                f"{self.model}: leave it out, or take --answers skeleton"
            )

    def _setting(self, shots: int, layers: int, images: Images) -> dict[str, Any]:
        setting: dict[str, Any] = {
            "mode": self.mode,
            "answers": self.answers,
            "classes": self.classes,
            "shots": shots,
            "layers": layers,
            "tokens_per_image": images.tokens(layers),
            "bins": self.bins,
        }
        # As most have it, they go without saying.
        told = {"offsets": self.offsets, "tokens": self.tokens, "wording": self.wording}
        told["points"] = self.points if self.mode == "segment" else 0
        return setting | {key: value for key, value in told.items() if value}

    def _instruction(self, classes: Sequence[str]) -> Instruction:
        return Instruction(
            task=self.mode,
            classes=tuple(classes),
            locations=Locations(bins=self.bins, offsets=self.offsets, tokens=self.tokens),
            points=self.points,
            wording=self.wording,
        )

    def _items(self, images: Images, shots: int, layers: int) -> tuple[Item, ...]:
        scenes = cast("SceneSet", images.examples).scenes
        classes = list(images.examples.class_names)
        words = images.words([scene.id for scene in scenes], layers)
        # The first ones are those in context, whatever their number: all cells ask the same.
        support, queries = scenes[:shots], scenes[max(self.shots) :]
        asked = {scene.id: self._asked(scene, classes) for scene in scenes}
        truths = {scene.id: asked[scene.id].answer(scene.objects, scene.size) for scene in scenes}
        examples = [(asked[one.id].text(words[one.id]), truths[one.id]) for one in support]
        # A token for each sign, and a tuple more than there are.
        room = max(map(len, truths.values())) * 3 // 2
        made = []
        for scene, other in zip(queries, (*queries[1:], queries[0]), strict=True):
            instruction, truth = asked[scene.id], truths[scene.id]
            calls = tuple(
                Call(
                    f"answer{suffix}",
                    prompts.follow(examples, instruction.text(words[seen.id]), lines=True),
                    room,
                    system=prompts.CHAT_LINES,
                )
                for seen, suffix in [(scene, ""), (other, OTHER.suffix)][: 1 + self.control]
            )
            things = [thing for thing in scene.objects if thing.name in instruction.classes]
            shown = {
                "instruction": records.of_instruction(instruction),
                "scene": records.of_layout(scene.size, things, self.mode == "segment"),
                "classes": classes,
                "truth": " ".join(truth.split("\n")),
                "question": ", ".join(instruction.classes),
                "words": words[scene.id],
                "query_key": scene.id,
                "other_key": other.id,
            }
            made.append(Item(scene.id, calls, truth, shown))
        return tuple(made)

    def _asked(self, scene: "Scene", classes: Sequence[str]) -> Instruction:
        """The whole class set; of grounding one of the things that are there."""
        if self.mode == "ground":
            classes = [Dice("ground", self.seed, scene.id).choose("thing", scene.objects, 1)[0].name]
        return self._instruction(classes)
