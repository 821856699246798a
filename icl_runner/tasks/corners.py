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
    )
    rules = choosing.RULES

    data: NameOrPath = "photographs"  # images with a class, or photographs
    # which corner a thing is in; what is beside one, to its left or right
    ask: Annotated[tuple[Literal["corner", "beside"], ...], option("{corner,beside} ..")] = (
        "corner",
        "beside",
    )
    # image: those of the mosaic's pyramid; regions: those of each corner, with its name
    words: Annotated[tuple[Literal["image", "regions"], ...], option("{image,regions} ..")] = (
        "image",
        "regions",
    )
    region_words: Annotated[int, whole(1)] = 2  # of each corner
    shots: Annotated[tuple[int, ...], wholes(0)] = (4,)  # examples in context
    count: Count = 100  # mosaics to ask about

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
        made = []
        for asked, words, shots, layers in itertools.product(self.ask, self.words, self.shots, self.layers):
            if words == "regions" and layers != self.layers[0]:
                continue  # they are of no layer
            setting: dict[str, Any] = {"ask": asked, "words": words, "shots": shots}
            if words == "image":
                setting |= {"layers": layers, "tokens_per_image": images.tokens(layers)}
            else:
                setting["tokens_per_image"] = len(CORNERS) * self.region_words
            made.append(
                self.cell(
                    "-".join(
                        ["corners", asked, words, f"{shots}shot"] + [f"layers{layers}"] * (words == "image")
                    ),
                    setting,
                    self._items(images, asked, self._words(images, words, layers), shots),
                    images,
                )
            )
        return made

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, str]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """1 or 0 for every answer; the control's against the same truth."""
        values = {
            key: float(choosing.chosen(key, answer, shown["names"]) == shown["truth"])
            for key, answer in answers.items()
        }
        metadata = {key: shown[key] for key in ("truth", "question", "words", "query_key")}
        return values, {"answers": dict(answers), **metadata}

    @classmethod
    def describe(cls, setting: Mapping[str, Any]) -> tuple[str, Collection[str]]:
        asked = {"corner": "which corner", "beside": "what is beside it"}[setting["ask"]]
        words = {"image": "words of the image", "regions": "words of each corner"}[setting["words"]]
        return f"{asked}, {words}", {"ask", "words"}

    def _words(self, images: Images, words: str, layers: int) -> dict[str, str]:
        """Of every mosaic by its id."""
        scenes = cast("SceneSet", images.examples).scenes
        if words == "image":
            return images.words([scene.id for scene in scenes], layers)
        regions = [(scene.id, thing.box) for scene in scenes for thing in scene.objects]
        found = images.region_words(regions, self.region_words)
        return {
            scene.id: "; ".join(
                f"{corner}: {found[scene.id, thing.box]}"
                for corner, thing in zip(CORNERS, scene.objects, strict=True)
            )
            for scene in scenes
        }

    def _items(self, images: Images, asked: str, words: Mapping[str, str], shots: int) -> tuple[Item, ...]:
        scenes = cast("SceneSet", images.examples).scenes
        # The first ones are those in context, whatever their number: all cells ask the same.
        support, queries = scenes[:shots], scenes[max(self.shots) :]
        put = {scene.id: _question(scene, asked, self.seed) for scene in scenes}
        room = choosing.max_tokens([name for _, names, _ in put.values() for name in names])
        examples = [(words[one.id], put[one.id][0], put[one.id][2]) for one in support]
        made = []
        for scene, other in zip(queries, (*queries[1:], queries[0]), strict=True):
            question, names, truth = put[scene.id]
            calls = tuple(
                choosing.choice(
                    prompts.vqa(examples, words[seen.id], question),
                    names,
                    room,
                    constraints.supports(self.model),
                    suffix,
                )
                for seen, suffix in [(scene, ""), (other, OTHER.suffix)][: 1 + self.control]
            )
            shown = {
                "names": list(names),
                "truth": truth,
                "question": question,
                "words": words[scene.id],
                "query_key": scene.id,
                "other_key": other.id,
            }
            made.append(Item(scene.id, calls, truth, shown))
        return tuple(made)


def _question(scene: "Scene", asked: str, seed: int) -> tuple[str, tuple[str, ...], str]:
    """A question about one of a mosaic's things, the four answers there are, and the right one."""
    place = Dice(asked, seed, scene.id).whole("place", 0, len(CORNERS) - 1)
    names = [thing.name for thing in scene.objects]
    if asked == "corner":
        return f"In which corner is the {names[place]}?", CORNERS, CORNERS[place]
    beside = place ^ 1  # in the same row
    side = "left" if beside < place else "right"
    return f"What is to the {side} of the {names[place]}?", tuple(sorted(names)), names[beside]
