"""Few-shot episodes: which images stand in the context, which one is asked about, and what the classes are called.

An episode has `ways` classes with `shots` images each, and one query of one of the classes (Frozen,
arXiv 2106.13884, section 4; SPAE, arXiv 2306.17842, section 4.1). Each also names a *control*: an image of a class
outside the episode, whose words may stand in for the query's, to see what a model answers that cannot know. Where the
data has no further class, it is another one of the episode's (`controlled_within`).

Drawing depends on nothing but the seed and the keys (`icl_runner.dice`).
"""

import csv
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from icl_runner import nonsense
from icl_runner.dice import Dice
from icl_runner.prompts import STOP
from spae.errors import InputError
from spae.files import write_file
from spae.sources.fields import class_name

FORMAT = "spae-episodes 1"
_CAPTION = re.compile(r"\s*this is (?:an? )?(.+?)[\s.]*", re.IGNORECASE)

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
        _check_names(names, classes)
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
        shown = _shown(names, chosen, dice)
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
            f"{len(usable)} of {len(classes)} classes; ask for fewer ways or shots"
        )
    return classes, usable


def controlled_within(episodes: Sequence[Episode], labels: Mapping[str, str]) -> bool:
    """Whether a control is of one of its own episode's classes; `labels`: image key -> class."""
    return any(labels.get(episode.other) in episode.names for episode in episodes)


def _check_names(names: Mapping[str, str], labels: Collection[str]) -> None:
    missing = sorted(set(labels) - set(names))
    if missing:
        raise InputError(f"wanted a name for each class, {len(missing)} have none, such as {missing[0]}")
    label_of: dict[str, str] = {}
    for label in sorted(labels):
        if label_of.setdefault(names[label], label) != label:
            raise InputError(
                f"wanted different names, {label_of[names[label]]} and {label} are both {names[label]!r}: rename one"
            )


def _shown(names: Names, labels: Sequence[str], dice: Dice) -> dict[str, str]:
    """The name of each label of one episode."""
    if names is None:
        return {label: label for label in labels}
    if isinstance(names, Mapping):
        return {label: names[label] for label in labels}
    if names != "nonsense":
        raise InputError(f'wanted names as a mapping, "nonsense" or None, got {names!r}')
    return dict(zip(labels, dice.choose("nonsense names", nonsense.WORDS, len(labels)), strict=True))


def write(path: str | Path, episodes: Sequence[Episode]) -> None:
    """Write episodes as JSON with a sha256 over their content.

    Raises:
        InputError: the file cannot be written.
    """
    content = [_to_json(episode) for episode in episodes]
    document = {"format": FORMAT, "sha256": _digest(content), "episodes": content}
    write_file(path, (json.dumps(document, indent=1) + "\n").encode())


def read(path: str | Path) -> list[Episode]:
    """The episodes that `write` wrote.

    Raises:
        InputError: no such file, another format, or a content that is not as it was written.
    """
    document = _load_json(path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(
            f"wanted a file of episodes ({FORMAT}), {path} is none: write one with episodes.write"
        )
    content = document.get("episodes", [])
    if document.get("sha256") != _digest(content):
        raise InputError(f"{path} is not as it was written (its sha256 differs): draw the episodes again")
    return [_from_json(entry) for entry in content]


def _to_json(episode: Episode) -> dict[str, Any]:
    # Names as pairs: their order matters, and a JSON object has none.
    return {**asdict(episode), "names": list(map(list, episode.names.items()))}


def _from_json(entry: dict[str, Any]) -> Episode:
    support = tuple(Shot(**shot) for shot in entry["support"])
    return Episode(
        **{**entry, "names": dict(entry["names"]), "support": support, "query": Shot(**entry["query"])}
    )


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _load_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): copy it again") from error


def read_frozen(path: str | Path, images: str | Path) -> list[Episode]:
    """The questions of a file of Frozen's benchmarks, Open-Ended or Real-Name mini-ImageNet.

    `<task>_shots_<n>_ways_<m>_all_questions.json`: a list of objects with `image_1`, `caption_1`, .. for the support
    ("This is a dax."), `question_image`, `answer` and `question_id`. Keys are file names in `images`. The control is
    the question's image of another question, of a class outside the episode where there is one: the nonsense names
    of Open-Ended are dealt anew for every question, so there its class may by chance be one of the episode's.

    Args:
        images: the folder of the unpacked .jpg files.

    Raises:
        InputError: no such file, a question that lacks something, or an image that is not in the folder.
    """
    questions = _load_json(path)
    if not isinstance(questions, list) or not questions:
        raise InputError(f"wanted a list of questions in {path}, got {type(questions).__name__}")
    rows = []
    for number, question in enumerate(questions):
        try:
            count = sum(1 for field in question if re.fullmatch(r"image_\d+", field))
            shots = [
                Shot(question[f"image_{n}"], _class_named(question[f"caption_{n}"]))
                for n in range(1, count + 1)
            ]
            query = Shot(question["question_image"], _class_named(question["answer"]))
            name = f"{Path(path).stem}-{question['question_id']}"
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{path}: question {number} lacks {error}: wanted image_n, caption_n, question_image, answer, "
                "question_id"
            ) from error
        for shot in (*shots, query):
            if not (Path(images) / shot.key).is_file():
                raise InputError(f"{path}: question {number} wants {shot.key}, which is not in {images}")
        rows.append((name, shots, query))
    return _published(rows, None, fall_back=True)


def _class_named(caption: Any) -> str:
    """ "This is a dax." -> "dax"; an answer is the bare name already."""
    if not isinstance(caption, str):
        raise TypeError("a text")
    found = _CAPTION.fullmatch(caption)
    return class_name(found.group(1) if found else caption)


def read_v2l(path: str | Path, names: Names = None) -> list[Episode]:
    """The episodes of a file of V2L-Tokenizer (arXiv 2403.07874), `<way>_way_<shot>_shot.csv`.

    A line is an episode: image files `<wnid>/<name>.JPEG` with commas between and perhaps at the end; the last is the
    query. The folder is the label. The control is the query of another line whose class is not in the episode, or,
    where the file has no other classes, is not this query's.

    Args:
        names: as in `draw`.

    Raises:
        InputError: no such file, a line that is no episode, or no line of another class for the control.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    rows = []
    for number, fields in enumerate(csv.reader(lines), 1):
        keys = [field.strip() for field in fields if field.strip()]
        if not keys:
            continue
        if len(keys) < 2 or any(key.count("/") != 1 for key in keys):
            raise InputError(
                f"{path}, line {number}: wanted files <wnid>/<name>, the query last; got {fields[:2]}"
            )
        shots = [Shot(key, class_name(key.split("/")[0])) for key in keys]
        rows.append((f"{Path(path).stem}-{number:05d}", shots[:-1], shots[-1]))
    if not rows:
        raise InputError(f"wanted one episode a line in {path}, it has none")
    if isinstance(names, Mapping):
        _check_names(names, {shot.label for _, support, query in rows for shot in (*support, query)})
    return _published(rows, names)


def _published(
    rows: Sequence[tuple[str, list[Shot], Shot]], names: Names, *, fall_back: bool = False
) -> list[Episode]:
    """Episodes of (id, support, query); the control comes from another row's query, of a class outside the episode if
    there is one, else of another class than the query's.

    With `fall_back` its class may be the query's where no other row has another class.
    """
    episodes = []
    for index, (name, support, query) in enumerate(rows):
        labels = list(dict.fromkeys(shot.label for shot in support))
        keys = {shot.key for shot in (*support, query)}
        dice = Dice(len(rows), index)
        start = next(dice.numbers("control")) % len(rows)
        candidates = (rows[(start + step) % len(rows)][2] for step in range(len(rows)))
        others = [candidate for candidate in candidates if candidate.key not in keys]
        # In this order: a class outside, another class of the episode, and any.
        control = next((other for other in others if other.label not in labels), None)
        control = control or next((other for other in others if other.label != query.label), None)
        control = control or (others[0] if fall_back and others else None)
        if control is None:
            raise InputError(
                f"episode {name}: no query of another class is left for its control: give the whole file"
            )
        shown = _shown(names, labels, dice)
        episodes.append(
            Episode(name, {label: shown[label] for label in labels}, tuple(support), query, control.key)
        )
    return episodes
