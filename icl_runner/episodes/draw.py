"""Few-shot episodes: which images stand in the context, which one is asked about, and what the classes are called.

An episode has `ways` classes with `shots` images each, and one query of one of the classes (Frozen,
arXiv 2106.13884, section 4; SPAE, arXiv 2306.17842, section 4.1). Each also names a *control*: an image of a class
outside the episode, whose words may stand in for the query's, to see what a model answers that cannot know. Where the
data has no further class, it is another one of the episode's (`controlled_within`).

Drawing depends on nothing but the seed and the keys (`icl_runner.dice`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from icl_runner.dice import Dice
from icl_runner.episodes import nonsense
from icl_runner.prompts import STOP
from spae.errors import InputError

Names = Mapping[str, str] | Literal["nonsense"] | None


@dataclass(frozen=True)
class Shot:
    """One image of an episode."""

    key: str
    label: str  # the class as the data names it


@dataclass(frozen=True)
class Episode:
    """One question with its context.

    Args:
        id: unique among the episodes drawn or read together.
        names: label -> name shown, in the order in which the task induction lists them.
        support: the images of the context, in the order of the prompt, one copy.
        query: the image asked about.
        other: key of the control, an image of a class outside the episode if there is one, else of another class than
            the query's (of a published file whose classes are nonsense: of another question).
        induction: whether the prompt opens by naming the classes.
        repeats: how many extra copies of the support there are.

    Raises:
        InputError: the query or the control is in the support, labels and names do not fit, or a name is none.
    """

    id: str
    names: Mapping[str, str]
    support: tuple[Shot, ...]
    query: Shot
    other: str
    induction: bool = True
    repeats: int = 0

    def __post_init__(self) -> None:
        keys = [shot.key for shot in self.support]
        labels = [shot.label for shot in self.support]
        wrong = None
        if self.query.key in keys:
            wrong = f"the query {self.query.key} is in its own context"
        elif self.other in [*keys, self.query.key]:
            wrong = f"the control {self.other} is an image of the episode itself"
        elif len(set(keys)) < len(keys):
            wrong = "an image is twice in the context: extra copies are what `repeats` is for"
        elif set(labels) != set(self.names) or self.query.label not in self.names:
            wrong = (
                f"the names are of {sorted(self.names)}, the images of {sorted({*labels, self.query.label})}"
            )
        elif len({labels.count(label) for label in labels}) > 1:
            wrong = "wanted as many images of each class as of any other"
        elif len(set(self.names.values())) < len(self.names):
            wrong = f"two classes have the same name, {sorted(self.names.values())}: give other names"
        elif ended := [name for name in self.names.values() if any(stop in name for stop in STOP)]:
            wrong = f"the name {ended[0]!r} holds a line break or ###, where answers end: rename it"
        elif self.repeats < 0:
            wrong = f"wanted repeats of 0 or more, got {self.repeats}"
        if wrong:
            raise InputError(f"episode {self.id}: {wrong}")

    @property
    def ways(self) -> int:
        """How many classes there are to choose from."""
        return len(self.names)

    @property
    def shots(self) -> int:
        """How many different images of each class stand in the context."""
        return len(self.support) // len(self.names)


def draw(
    labels: Mapping[str, str],
    ways: int,
    shots: int,
    episodes: int,
    seed: int,
    *,
    names: Names,
    induction: bool = True,
    repeats: int = 0,
) -> list[Episode]:
    """Episodes over labelled images, the same on every machine.

    Episode i of a seed has the same classes, query and control whatever `shots`, `names`, `induction` and `repeats`
    are (as long as every class has enough images), and its 3-shot context holds the images of its 1-shot context:
    the cells of a table are compared on the same questions. The order of the mapping does not matter.

    Args:
        labels: image key -> class, of all images to draw from.
        names: label -> name shown (every class that has images must have one); "nonsense" for made-up words, new for
            each episode; None to show the label itself.
        induction, repeats: handed on to the episodes.

    Raises:
        InputError: numbers under 1; fewer than `ways` classes with shots + 1 images, or no class besides the only
            one for the control; a class without a name, or two that share one.
    """
    if min(ways, shots, episodes) < 1:
        raise InputError(f"wanted at least 1 way, shot and episode, got {ways}, {shots} and {episodes}")
    classes, usable = _classes(labels, ways, shots)
    if isinstance(names, Mapping):
        check_names(names, classes)
    drawn = []
    for index in range(episodes):
        dice = Dice(seed, ways, index)
        chosen = dice.choose("classes", usable, ways)
        # One image more than the support needs: the first is set aside, and the query's class uses it.
        images = {label: dice.choose(f"images of {label}", classes[label], shots + 1) for label in chosen}
        query = Shot(images[chosen[0]][0], chosen[0])
        support = [Shot(key, label) for label in chosen for key in images[label][1:]]
        others = sorted(set(classes) - set(chosen)) or chosen[1:]
        other = dice.choose("class of the control", others, 1)[0]
        # Of a class of the episode, the image that is set aside is not in the context.
        left = images[other][:1] if other in images else classes[other]
        shown = shown_names(names, chosen, dice)
        drawn.append(
            Episode(
                id=f"{ways}way-{shots}shot-seed{seed}-{index:05d}",
                names={label: shown[label] for label in dice.choose("order of the names", chosen, ways)},
                support=tuple(dice.choose("order of the support", support, len(support))),
                query=query,
                other=dice.choose("control", left, 1)[0],
                induction=induction,
                repeats=repeats,
            )
        )
    return drawn


def _classes(labels: Mapping[str, str], ways: int, shots: int) -> tuple[dict[str, list[str]], list[str]]:
    """The image keys of every class, and the classes that an episode may have."""
    classes: dict[str, list[str]] = {}
    for key in sorted(labels):
        classes.setdefault(labels[key], []).append(key)
    usable = sorted(label for label, keys in classes.items() if len(keys) > shots)
    if len(usable) < ways or len(classes) < 2:
        raise InputError(
            f"{ways}-way {shots}-shot episodes need {max(ways, 2)} classes of at least {shots + 1} images, got "
            f"{len(usable)} of {len(classes)} classes; ask for fewer ways or shots, or bring more images of each class"
        )
    return classes, usable


def controlled_within(episodes: Sequence[Episode], labels: Mapping[str, str]) -> bool:
    """Whether a control is of one of its own episode's classes; `labels`: image key -> class."""
    return any(labels.get(episode.other) in episode.names for episode in episodes)


def check_names(names: Mapping[str, str], labels: Collection[str]) -> None:
    """Whether every label has a name of its own.

    Raises:
        InputError: a label without a name, or two that share one.
    """
    missing = sorted(set(labels) - set(names))
    if missing:
        raise InputError(f"wanted a name for each class, {len(missing)} have none, such as {missing[0]}")
    label_of: dict[str, str] = {}
    for label in sorted(labels):
        if label_of.setdefault(names[label], label) != label:
            raise InputError(
                f"wanted different names, {label_of[names[label]]} and {label} are both {names[label]!r}: rename one"
            )


def shown_names(names: Names, labels: Sequence[str], dice: Dice) -> dict[str, str]:
    """The name of each label of one episode."""
    if names is None:
        return {label: label for label in labels}
    if isinstance(names, Mapping):
        return {label: names[label] for label in labels}
    if names != "nonsense":
        raise InputError(f'wanted names as a mapping, "nonsense" or None, got {names!r}')
    return dict(zip(labels, dice.choose("nonsense names", nonsense.WORDS, len(labels)), strict=True))
