"""Where is it? Questions about mosaics of four photographs: in which corner a thing is, and what is beside it."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from icl_runner import constraints, prompts
from icl_runner.cells import Item, TextCell
from icl_runner.data.images import Images
from icl_runner.dice import Dice
from icl_runner.figures import OTHER, Measure
from icl_runner.options import Count, NameOrPath, option, whole, wholes
from icl_runner.task import task
from icl_runner.texts import choosing
from icl_runner.texts.task import TextTask
from spae.errors import InputError

# They take JAX along, which takes seconds to import.
if TYPE_CHECKING:
    from icl_runner.data.scene_sets import SceneSet
    from icl_runner.data.scenes import Scene

CORNERS = ("upper left", "upper right", "lower left", "lower right")  # as a mosaic's photographs lie
_FLOOR = ("25.0", "one of four")
_BETWEEN = {"image": " ", "regions": "; ", "names": "; "}  # parts of what a model reads of a mosaic


@task
@dataclass(frozen=True, kw_only=True)
class Corners(TextTask):
    """Questions about mosaics of four photographs: which corner, and what is to the left or right.

    example: spae-icl run corners --model spae-lm/default --words image regions
    """

    title = "Where it is in a mosaic of four"
    measures = (
        Measure("constrained", "constrained to the four answers, %", 100, 1, share=True, floor=_FLOOR),
        Measure("instructed", "told the four answers, %", 100, 1, share=True, floor=_FLOOR),
        Measure("likeliest", "the likeliest of the four answers, %", 100, 1, share=True, floor=_FLOOR),
        Measure("calibrated", "the same, calibrated, %", 100, 1, share=True, floor=_FLOOR),
    )
    rules = choosing.RULES

    data: NameOrPath = "photographs"  # images with a class, or photographs
    # which corner a thing is in; what is beside one, to its left or right
    ask: Annotated[tuple[Literal["corner", "beside"], ...], option("{corner,beside} ..")] = (
        "corner",
        "beside",
    )
    # image: those of the mosaic's pyramid; regions: those of each corner, and where it is; names: what is in each
    # corner by its name, the ceiling
    words: Annotated[tuple[Literal["image", "regions", "names"], ...], option("{image,regions,names} ..")] = (
        "image",
        "regions",
    )
    region_words: Annotated[int, whole(1)] = 2  # of each corner
    shots: Annotated[tuple[int, ...], wholes(0)] = (4,)  # examples in context
    count: Count = 100  # mosaics to ask about
    # content-free prompts that calibrate the answers' likelihoods, as columns of their own (0: none)
    content_free: Annotated[int, whole(0)] = 0

    def examples(self) -> "SceneSet":
        from icl_runner.data import sets
        from icl_runner.data.scene_sets import SceneSet
        from icl_runner.data.scenes import mosaic
        from icl_runner.data.sprites import of_examples

        photographs = of_examples(sets.labelled(self.data, self.split))
        scenes = [mosaic(photographs, self.seed, number) for number in range(max(self.shots) + self.count)]

        def identity() -> str:
            return f"mosaics {photographs.identity()} {self.seed}"

        return SceneSet(f"{photographs.name}, four", scenes, photographs.names, identity)

    def cells(self, images: Images) -> list[TextCell]:
        if self.control and self.count < 2:
            raise InputError("corners: wanted 2 mosaics at least for the control, or --no-control")
        if self.content_free and max(self.shots) + self.count <= len(CORNERS):
            raise InputError(
                f"corners: wanted more than {len(CORNERS)} mosaics, those in context included, of whose parts "
                "content-free prompts are made: ask for more --examples"
            )
        if self.content_free:
            choosing.check_likelihoods("--content-free", self.model, self.model_args)
        made = []
        for asked, words, shots, layers in itertools.product(self.ask, self.words, self.shots, self.layers):
            if words != "image" and layers != self.layers[0]:
                continue  # they are of no layer
            setting: dict[str, Any] = {"ask": asked, "words": words, "shots": shots}
            if words == "image":
                setting |= {"layers": layers, "tokens_per_image": images.tokens(layers)}
            else:
                setting["tokens_per_image"] = len(CORNERS) * self.region_words if words == "regions" else 0
            setting |= {"content_free": self.content_free} if self.content_free else {}
            made.append(
                self.cell(
                    "-".join(
                        ["corners", asked, words, f"{shots}shot"] + [f"layers{layers}"] * (words == "image")
                    ),
                    setting,
                    self._items(images, asked, _Seen(self, images, words, layers), shots),
                    images,
                )
            )
        return made

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """1 or 0 for every answer; the control's against the same truth."""
        chosen = {
            key: choosing.chosen(key, answer, shown["names"])
            for key, answer in answers.items()
            if isinstance(answer, str)
        }
        for suffix in ("", OTHER.suffix):
            chosen |= {
                f"{key}{suffix}": name for key, name in choosing.by_likelihood(answers, suffix).items()
            }
        values = {key: float(name == shown["truth"]) for key, name in chosen.items()}
        metadata = {key: shown[key] for key in ("truth", "names", "question", "words", "query_key")}
        return values, {"answers": dict(answers), **metadata}

    @classmethod
    def describe(cls, setting: Mapping[str, Any]) -> tuple[str, Collection[str]]:
        asked = {"corner": "which corner", "beside": "what is beside it"}[setting["ask"]]
        words = {
            "image": "words of the image",
            "regions": "words of each corner",
            "names": "the true names in the corners",
        }[setting["words"]]
        return f"{asked}, {words}", {"ask", "words"}

    @classmethod
    def is_ceiling(cls, setting: Mapping[str, Any]) -> bool:
        return setting["words"] == "names"

    def _items(self, images: Images, asked: str, seen: "_Seen", shots: int) -> tuple[Item, ...]:
        scenes = cast("SceneSet", images.examples).scenes
        # The first ones are those in context, whatever their number: all cells ask the same.
        support, queries = scenes[:shots], scenes[max(self.shots) :]
        put = {scene.id: _question(scene, asked, self.seed) for scene in scenes}
        room = choosing.max_tokens([name for _, names, _ in put.values() for name in names])
        examples = [(seen.words(one), put[one.id][0], put[one.id][2]) for one in support]
        made = []
        for scene, other in zip(queries, (*queries[1:], queries[0]), strict=True):
            question, names, truth = put[scene.id]
            read = {"": seen.words(scene)} | ({OTHER.suffix: seen.words(other)} if self.control else {})
            asking = {suffix: prompts.vqa(examples, words, question) for suffix, words in read.items()}
            calls = [
                choosing.choice(prompt, names, room, constraints.supports(self.model), suffix)
                for suffix, prompt in asking.items()
            ]
            if self.content_free:
                calls += [
                    choosing.likelihood(f"{choosing.LIKELIEST}{suffix}", prompt, names, room)
                    for suffix, prompt in asking.items()
                ]
            for number in range(1, self.content_free + 1):
                prompt = prompts.vqa(examples, seen.mixed(scene, number), question)
                calls.append(choosing.likelihood(f"{choosing.CONTENT_FREE}{number}", prompt, names, room))
            shown = {
                "names": list(names),
                "truth": truth,
                "question": question,
                "words": read[""],
                "query_key": scene.id,
                "other_key": other.id,
            }
            made.append(Item(scene.id, tuple(calls), truth, shown))
        return tuple(made)


class _Seen:
    """What a model reads of mosaics, in one way: parts, each of which belongs to a place."""

    def __init__(self, of_task: Corners, images: Images, words: str, layers: int) -> None:
        self._scenes = cast("SceneSet", images.examples).scenes
        self._between = _BETWEEN[words]
        if words == "image":
            found = images.words([scene.id for scene in self._scenes], layers)
            self._parts = {scene: read.split() for scene, read in found.items()}
            return
        said = {(scene.id, thing.box): thing.name for scene in self._scenes for thing in scene.objects}
        if words == "regions":
            said = images.region_words(said, of_task.region_words)
        # What is there stands before the place: a small reader finds what comes behind a word that it looks for, and
        # hardly what came before it (docs/results.md).
        self._parts = {
            scene.id: [
                f"{said[scene.id, thing.box]}: {corner}"
                for corner, thing in zip(CORNERS, scene.objects, strict=True)
            ]
            for scene in self._scenes
        }

    def words(self, scene: "Scene") -> str:
        return self._between.join(self._parts[scene.id])

    def mixed(self, scene: "Scene", number: int) -> str:
        """Of no mosaic: as many parts as the scene has, each of another one and at the place that it has there. Where
        there are enough, of mosaics that show none of the scene's things; of images that are shown whole one other."""
        others = [one for one in self._scenes if one.id != scene.id]
        apart = [one for one in others if not _names(one) & _names(scene)]
        apart = apart if len(apart) >= len(CORNERS) else others
        count = len(self._parts[scene.id])
        drawn = Dice("content-free", scene.id).choose(f"mosaics {number}", apart, min(count, len(apart)))
        return self._between.join(self._parts[drawn[place % len(drawn)].id][place] for place in range(count))


def _names(scene: "Scene") -> set[str]:
    return {thing.name for thing in scene.objects}


def _question(scene: "Scene", asked: str, seed: int) -> tuple[str, tuple[str, ...], str]:
    """A question about one of a mosaic's things, the four answers there are, and the right one."""
    place = Dice(asked, seed, scene.id).whole("place", 0, len(CORNERS) - 1)
    names = [thing.name for thing in scene.objects]
    if asked == "corner":
        return f"In which corner is the {names[place]}?", CORNERS, CORNERS[place]
    beside = place ^ 1  # in the same row
    side = "left" if beside < place else "right"
    return f"What is to the {side} of the {names[place]}?", tuple(sorted(names)), names[beside]
