"""The two-object test: one of two things in an image is pointed at, then the other. Does the answer follow?"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np

from icl_runner import constraints, prompts, scoring
from icl_runner.cells import Item, TextCell
from icl_runner.data.images import Images
from icl_runner.dice import Dice
from icl_runner.figures import OTHER, Control, Measure
from icl_runner.marks.shapes import SHAPES
from icl_runner.marks.visual_prompts import Mark, mark, point_out
from icl_runner.options import Count, NameOrPath, choice, option, whole, wholes
from icl_runner.task import task
from icl_runner.texts import choosing
from icl_runner.texts.task import TextTask
from spae.errors import InputError

# They take JAX along, which takes seconds to import.
if TYPE_CHECKING:
    from icl_runner.data.scene_sets import SceneSet
    from icl_runner.data.scenes import Scene, SceneObject

PLACES = (0, 1)  # of the two things that are pointed at
SWAPPED = Control("_swapped", "control: the other of the two pointed at")
_HALF = ("50.0", "one of two names")
_QUARTER = ("25.0", "two right guesses (0 for whoever does not see where is pointed)")


@task
@dataclass(frozen=True, kw_only=True)
class Regions(TextTask):
    """The two-object test: a thing of an image is pointed at, then another; the answer must follow.

    example: spae-icl run regions --model spae-lm/default --data openmoji --examples 50
    """

    title = "Two things of one image, pointed at in turn"
    measures = (
        Measure("constrained_right", "right, constrained to the two names, %", 100, 1, floor=_HALF),
        Measure("constrained_flip", "both right, constrained, %", 100, 1, share=True, floor=_QUARTER),
        Measure("instructed_right", "right, told the two names, %", 100, 1, floor=_HALF),
        Measure("instructed_flip", "both right, told, %", 100, 1, share=True, floor=_QUARTER),
    )
    controls = (SWAPPED, OTHER)
    rules = ("constrained_flip", "instructed_flip")

    # openmoji or tuxpaint, if installed; or labelled images, four to a mosaic
    data: NameOrPath = "photographs"
    # how, each a row. mark: drawn on the image; none: said, not drawn; words: those of the region; crop: those of the
    # region as an image of its own
    pointing: Annotated[
        tuple[Literal["mark", "none", "words", "crop"], ...], option("{mark,none,words,crop} ..")
    ] = ("mark", "none", "words", "crop")
    shape: Annotated[str, choice(*SHAPES)] = "rectangle"  # of the mark
    region_words: Annotated[int, whole(1)] = 5  # of pointing by words
    shots: Annotated[tuple[int, ...], wholes(0)] = (4,)  # examples in context
    count: Count = 100  # images to ask about

    def examples(self) -> "SceneSet":
        from icl_runner.data.scene_sets import SceneSet, make_scenes, sprites
        from icl_runner.data.scenes import Composition

        composition = Composition(least=2, most=2, smallest=0.35, largest=0.5, overlap=0)
        taken = sprites(self.data, self.split)
        wanted = max(self.shots) + self.count
        scenes = make_scenes(taken, self.seed, wanted, composition, fits=self._is_new)
        views: dict[str, Callable[[Scene], np.ndarray]] = {}
        for place in PLACES:
            views[f"mark{place}"] = partial(self._marked, place)
            views[f"crop{place}"] = partial(_crop, place)

        def identity() -> str:
            return f"two of {taken.identity()} {composition} {self.seed} {self.shape}"

        return SceneSet(f"{taken.name}, two things", scenes, taken.names, identity, views)

    def _is_new(self, before: Sequence["Scene"], scene: "Scene") -> bool:
        """Whether a scene asks about no thing that an example of the context names: its crop would be the same."""
        examples = before[: max(self.shots)]
        named = {pair(example)[self._named(example)].key for example in examples}
        return len(before) < max(self.shots) or named.isdisjoint(thing.key for thing in pair(scene))

    def _named(self, example: "Scene") -> int:
        """Which of its two things an example of the context names."""
        return Dice("shown thing", self.seed, example.id).whole("place", *PLACES)

    def cells(self, images: Images) -> list[TextCell]:
        if self.control and self.count < 2:
            raise InputError("regions: wanted 2 images at least for the control, or --no-control")
        made = []
        for shots, pointing, layers in itertools.product(self.shots, self.pointing, self.layers):
            setting: dict[str, Any] = {
                "pointing": pointing,
                "shots": shots,
                "layers": layers,
                "tokens_per_image": images.tokens(layers),
            }
            if pointing in ("mark", "none"):
                setting["shape"] = self.shape
            if pointing == "words":
                setting["words_of_a_region"] = self.region_words
            made.append(
                self.cell(
                    f"regions-{pointing}-{shots}shot-layers{layers}",
                    setting,
                    self._items(_Pointed(self, images, pointing, layers), shots),
                    images,
                )
            )
        return made

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Of the two answers how many are right, and whether both are; the controls' against the same truth."""
        values: dict[str, float] = {}
        both: dict[str, str] = {}
        for rule, suffix in itertools.product(choosing.RULES, ("", OTHER.suffix)):
            keys = [f"{rule}_{place}{suffix}" for place in PLACES]
            if not set(keys) <= set(answers):
                continue
            both[f"{rule}_flip{suffix}"] = " / ".join(
                scoring.finished(answers[key], prompts.STOP) for key in keys
            )
            said = [choosing.chosen(key, answers[key], shown["names"]) for key in keys]
            compared = {suffix: said} if suffix else {"": said, SWAPPED.suffix: said[::-1]}
            for of_row, order in compared.items():
                right = [one == truth for one, truth in zip(order, shown["truth"], strict=True)]
                values[f"{rule}_right{of_row}"] = sum(right) / len(right)
                values[f"{rule}_flip{of_row}"] = float(all(right))
        metadata = {
            "answers": both,
            "question": " / ".join(shown["questions"]),
            "truth": " / ".join(shown["truth"]),
            "words": shown["words"],
            "query_key": shown["query_key"],
        }
        return values, metadata

    @classmethod
    def describe(cls, setting: Mapping[str, Any]) -> tuple[str, Collection[str]]:
        ways = {
            "mark": f"a {setting.get('shape')} drawn",
            "none": f"a {setting.get('shape')} named, not drawn",
            "words": f"{setting.get('words_of_a_region')} words of the region",
            "crop": "the region's words as an image of its own",
        }
        return f"pointed at by {ways[setting['pointing']]}", {"pointing", "shape", "words_of_a_region"}

    def mark(self, place: int, scene: "Scene") -> tuple[np.ndarray, Mark]:
        """The picture with its mark, which has the same colour, width and so on for both of the things."""
        return mark(scene.image, scene.mask(pair(scene)[place]), self.shape, seed=f"{self.seed} {scene.id}")

    def _marked(self, place: int, scene: "Scene") -> np.ndarray:
        return self.mark(place, scene)[0]

    def _items(self, pointed: "_Pointed", shots: int) -> tuple[Item, ...]:
        # The first ones are those in context, whatever their number: all cells ask the same.
        scenes = pointed.scenes
        support, queries = scenes[:shots], scenes[max(self.shots) :]
        room = choosing.max_tokens([thing.name for scene in scenes for thing in pair(scene)])
        examples = []
        for scene in support:
            place = self._named(scene)
            name = pair(scene)[place].name
            examples.append((pointed.words(scene, place), pointed.question(scene, scene, place), name))
        made = []
        for scene, other in zip(queries, (*queries[1:], queries[0]), strict=True):
            calls = [
                choosing.choice(
                    prompts.vqa(examples, pointed.words(seen, place), pointed.question(scene, seen, place)),
                    names(scene),
                    room,
                    constraints.supports(self.model),
                    f"_{place}{suffix}",
                )
                for seen, suffix in [(scene, ""), (other, OTHER.suffix)][: 1 + self.control]
                for place in PLACES
            ]
            shown = {
                "names": names(scene),
                "truth": [thing.name for thing in pair(scene)],
                "questions": [pointed.question(scene, scene, place) for place in PLACES],
                "words": " / ".join(dict.fromkeys(pointed.words(scene, place) for place in PLACES)),
                "query_key": pointed.picture(scene, PLACES[0]),
                "other_key": pointed.picture(other, PLACES[0]),
            }
            made.append(Item(scene.id, tuple(calls), " / ".join(shown["truth"]), shown))
        return tuple(made)


class _Pointed:
    """What a model reads of scenes where their things are pointed at in one way."""

    def __init__(self, of_task: Regions, images: Images, pointing: str, layers: int) -> None:
        self._task, self._pointing = of_task, pointing
        self._set = cast("SceneSet", images.examples)
        self.scenes = self._set.scenes
        every = list(itertools.product(self.scenes, PLACES))
        self._words = images.words([self.picture(*one) for one in every], layers)
        self._regions: Mapping[Any, str] = {}
        if pointing == "words":
            self._regions = images.region_words([self._region(*one) for one in every], of_task.region_words)
        elif pointing == "crop":
            self._regions = images.words([self._region(*one) for one in every], layers)

    def picture(self, scene: "Scene", place: int) -> str:
        """The key of the image that is looked at."""
        return self._set.key(scene, f"mark{place}" if self._pointing == "mark" else "")

    def words(self, scene: "Scene", place: int) -> str:
        return self._words[self.picture(scene, place)]

    def question(self, scene: "Scene", seen: "Scene", place: int) -> str:
        """Which of a scene's things is it? What is pointed at lies in `seen`: of the control another scene."""
        if self._pointing in ("mark", "none"):
            phrase = self._task.mark(place, seen)[1].phrase
        else:
            phrase = f"in the part with the words {self._regions[self._region(seen, place)]}"
        return point_out(f"What is <region>, {' or '.join(names(scene))}?", [phrase])

    def _region(self, scene: "Scene", place: int) -> Any:
        """By what the words of a region are kept."""
        if self._pointing == "words":
            return self._set.key(scene), pair(scene)[place].box
        return self._set.key(scene, f"crop{place}")


def pair(scene: "Scene") -> list["SceneObject"]:
    """The two things that are pointed at; of a mosaic's four any two."""
    return Dice("pair", scene.id).choose("things", scene.objects, 2)


def names(scene: "Scene") -> list[str]:
    """Of the two, in an order that says nothing."""
    return sorted(thing.name for thing in pair(scene))


def _crop(place: int, scene: "Scene") -> np.ndarray:
    """The least square around a thing, moved onto the image: a tokenizer looks at squares."""
    box = pair(scene)[place].box
    side = int(max(box.width, box.height))
    x, y = (
        int(min(max(0, start + length / 2 - side / 2), whole - side))
        for start, length, whole in zip(box[:2], box[2:], scene.size, strict=True)
    )
    return scene.image[y : y + side, x : x + side]
