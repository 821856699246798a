"""Scenes as a data set, with the pictures that a task makes of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from icl_runner.data import sets
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.data.scenes import Composition, Scene, compose, mosaic
from icl_runner.data.sprites import SPRITES, SpriteSet, of_examples
from spae.errors import InputError
from spae.progress import Progress

_TRIALS = 20  # scenes to look through for each that is wanted

# Of a scene a picture that is looked at in its place, or beside it.
View = Callable[[Scene], UInt8[np.ndarray, "h w 3"]]


class SceneSet(ExampleSet):
    """Scenes as examples: the picture of each under its id, every view of it under `key(scene, view)`.

    Args:
        name: what tables call the set.
        scenes: at least one.
        names: of all that may lie in one: the class set.
        identity: computes the text that names everything that the pictures depend on.
        views: by name.
    """

    def __init__(
        self,
        name: str,
        scenes: Sequence[Scene],
        names: Iterable[str],
        identity: Callable[[], str],
        views: Mapping[str, View] | None = None,
    ) -> None:
        self.scenes = tuple(scenes)
        made: dict[str, tuple[Scene, View]] = {scene.id: (scene, lambda one: one.image) for scene in scenes}
        for scene in scenes:
            made |= {self.key(scene, view): (scene, make) for view, make in (views or {}).items()}

        def read(key: str) -> np.ndarray:
            scene, make = made[key]
            return make(scene)

        examples = [Example(key, captions=(scene.caption,)) for key, (scene, _) in made.items()]
        super().__init__(name, examples, {name: name for name in names}, read, identity)

    @staticmethod
    def key(scene: Scene, view: str = "") -> str:
        """The image key of a scene, or of a view of it."""
        return f"{scene.id}/{view}" if view else scene.id


def sprites(data: str, split: str | None) -> SpriteSet:
    """What scenes are made of: "openmoji" or "tuxpaint" where they are installed; else labelled images, as
    `sets.labelled` takes them, four of which make a mosaic.

    Raises:
        InputError: they are not installed, or are none; a split of what has none.
    """
    if data not in SPRITES:
        return of_examples(sets.labelled(data, split))
    if split is not None:
        raise InputError(f"{data} has no splits, got {split}: leave it out")
    return SPRITES[data]()


def make_scenes(
    from_sprites: SpriteSet,
    seed: int,
    count: int,
    composition: Composition,
    names: Iterable[str] = (),
    fits: Callable[[Sequence[Scene], Scene], bool] = lambda before, scene: True,
) -> list[Scene]:
    """The first `count` scenes of a seed: composed of what is cut out, mosaics of whole images (which take no
    composition).

    Args:
        names: of the things to choose from; all by default.
        fits: whether a scene may stand behind those before it; others are passed over.

    Raises:
        InputError: as `compose` and `mosaic`; or of so many scenes too few fit.
    """
    chosen = from_sprites.only(names) if names else from_sprites
    found: list[Scene] = []
    with Progress(count, "scenes", "scene") as progress:
        for number in range(_TRIALS * count):
            scene = (
                mosaic(chosen, seed, number) if chosen.whole else compose(chosen, seed, number, composition)
            )
            if fits(found, scene):
                found.append(scene)
                progress.update(1)
            if len(found) == count:
                return found
    raise InputError(
        f"wanted {count} scenes of {from_sprites.name} whose things are not those of the examples, found {len(found)} "
        f"among {_TRIALS * count}: ask for fewer examples, or take data of more things"
    )
