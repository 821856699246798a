"""Boxes from elsewhere, which a model names: detection by a text model that cannot say where things are."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

from icl_runner import constraints, prompts
from icl_runner.cells import Item, TextCell
from icl_runner.data.images import Images
from icl_runner.detection import records
from icl_runner.detection.detections import Detection
from icl_runner.detection.instructions import Instruction
from icl_runner.detection.task import ORACLE, RANDOM, DetectionTask, scored
from icl_runner.dice import Dice
from icl_runner.figures import OTHER, Measure
from icl_runner.options import wholes
from icl_runner.task import task
from icl_runner.texts import choosing

# It takes JAX along, which takes seconds to import.
if TYPE_CHECKING:
    from icl_runner.data.scene_sets import SceneSet
    from icl_runner.data.scenes import Scene, SceneObject

NAMED = {
    rule: Measure(f"named_{rule}", f"boxes named right, {how}, %", 100, 1)
    for rule, how in zip(choosing.RULES, ("constrained to the class set", "told the class set"), strict=True)
}


@task
@dataclass(frozen=True, kw_only=True)
class Propose(DetectionTask):
    """Boxes are given, exactly those of the things; the model names them.

    example: spae-icl run propose --model spae-lm/default --data openmoji --region-words 0 5
    """

    title = "Boxes that are given, named"
    measures = (*DetectionTask.measures, *NAMED.values())

    # of each box, behind the words of the image; 0: only where the box is. Each number a row
    region_words: Annotated[tuple[int, ...], wholes(0)] = (0, 5)

    def cells(self, images: Images) -> list[TextCell]:
        made = []
        for count, shots, layers in itertools.product(self.region_words, self.shots, self.layers):
            setting = {
                "region_words": count,
                "classes": self.classes,
                "shots": shots,
                "layers": layers,
                "tokens_per_image": images.tokens(layers),
            }
            made.append(
                self.cell(
                    f"propose-{count}words-{shots}shot-layers{layers}",
                    setting,
                    self._items(images, count, shots, layers),
                    images,
                )
            )
        return made

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """The boxes with the names that they got as detections, and the share of right names; of the controls too. A
        box without a name of the class set is no detection, and is counted."""
        classes, things = shown["classes"], records.layout(shown["scene"]).objects
        dice = Dice("random name", shown["query_key"])
        names: dict[str, list[str | None]] = {
            ORACLE.suffix: [thing.name for thing in things],
            RANDOM.suffix: [dice.choose(str(place), classes, 1)[0] for place in range(len(things))],
        }
        rule = next(rule for rule in choosing.RULES if f"{rule}_0" in answers)
        for suffix in ("", OTHER.suffix):
            keys = [f"{rule}_{place}{suffix}" for place in range(len(things))]
            if set(keys) <= set(answers):
                names[suffix] = [choosing.chosen(key, answers[key], classes) for key in keys]
        found = {
            suffix: [Detection(name, thing.box) for name, thing in zip(given, things, strict=True) if name]
            for suffix, given in names.items()
        }
        faults = {
            suffix: {"read": len(found[suffix]), "class": given.count(None)}
            for suffix, given in names.items()
            if suffix in ("", OTHER.suffix)
        }
        asked = Instruction(task="detect", classes=tuple(classes))
        values, metadata = scored(shown, answers, asked, found, faults)
        for suffix, given in names.items():
            right = [name == thing.name for name, thing in zip(given, things, strict=True)]
            values[f"{NAMED[rule].key}{suffix}"] = sum(right) / len(right)
        return values, metadata

    def _items(self, images: Images, count: int, shots: int, layers: int) -> tuple[Item, ...]:
        scenes = cast("SceneSet", images.examples).scenes
        classes = tuple(images.examples.class_names)
        words = images.words([scene.id for scene in scenes], layers)
        regions = [(scene.id, thing.box) for scene in scenes for thing in scene.objects] if count else []
        of_regions = images.region_words(regions, count)

        def asked(scene: "Scene", thing: "SceneObject", seen: "Scene", there: "SceneObject") -> str:
            """Of a thing's box; what is seen, and what is there, are those of another scene for the control."""
            x1, y1, x2, y2 = thing.box.corners
            bare = Instruction(task="detect", classes=classes)
            place = tuple(bare.locations.encode(((x1, y1), (x2, y2)), scene.size))
            image = words[seen.id]
            if count:
                image = f"{image} (that part of it: {of_regions[seen.id, there.box]})"
            return Instruction(task="name", classes=classes, place=place).text(image)

        # The first ones are those in context, whatever their number: all cells ask the same.
        support, queries = scenes[:shots], scenes[max(self.shots) :]
        examples = [
            (asked(one, thing, one, thing), thing.name) for one in support for thing in one.objects[:1]
        ]
        room = choosing.max_tokens(classes)
        made = []
        for scene, other in zip(queries, (*queries[1:], queries[0]), strict=True):
            calls = []
            for seen, suffix in [(scene, ""), (other, OTHER.suffix)][: 1 + self.control]:
                for place, thing in enumerate(scene.objects):
                    there = seen.objects[place % len(seen.objects)]
                    prompt = prompts.follow(examples, asked(scene, thing, seen, there))
                    constrains = constraints.supports(self.model)
                    calls.append(choosing.choice(prompt, classes, room, constrains, f"_{place}{suffix}"))
            truth = ", ".join(thing.name for thing in scene.objects)
            shown = {
                "scene": records.of_layout(scene.size, scene.objects, outlines=False),
                "classes": list(classes),
                "truth": truth,
                "question": ", ".join(classes),
                "words": words[scene.id],
                "query_key": scene.id,
                "other_key": other.id,
            }
            made.append(Item(scene.id, tuple(calls), truth, shown))
        return tuple(made)
