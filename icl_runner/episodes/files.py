"""Files of episodes: ours, and those of two published benchmarks."""

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from icl_runner.dice import Dice
from icl_runner.episodes import nonsense
from icl_runner.episodes.draw import Episode, Names, Shot, check_names, shown_names
from spae.errors import InputError
from spae.files import write_file
from spae.sources.fields import class_name

FORMAT = "spae-episodes 1"
_CAPTION = re.compile(r"\s*this is (?:an? )?(.+?)[\s.]*", re.IGNORECASE)


def read_any(path: str | Path, images: str | Path, names: Names) -> tuple[list[Episode], str]:
    """The episodes of a file, whichever kind it is, and what they call the classes: "real" or "nonsense".

    Args:
        images: the folder of the images, for Frozen's files.
        names: as in `draw`, for V2L's files; the others bring their own.

    Raises:
        InputError: as `read`, `read_frozen` and `read_v2l`; no episodes, or of several numbers of ways or shots.
    """
    path = Path(path)
    if path.suffix == ".csv":
        found = read_v2l(path, names)
        made_up = names == "nonsense"
    else:
        found = read_frozen(path, images) if is_frozen(path) else read(path)
        shown = {name for episode in found for name in episode.names.values()}
        # The benchmark with made-up names is called so by its authors.
        made_up = path.name.startswith("open_ended") or shown <= set(nonsense.WORDS)
    if not found:
        raise InputError(f"wanted episodes, {path} has none")
    sizes = sorted({(episode.ways, episode.shots) for episode in found})
    if len(sizes) > 1:
        told = " and ".join(f"{ways}-way {shots}-shot" for ways, shots in sizes[:3])
        raise InputError(
            f"wanted as many ways and shots in every episode, {path} has {told}: they are columns of their own, "
            "give a file for each"
        )
    return found, "nonsense" if made_up else "real"


def is_frozen(path: str | Path) -> bool:
    """Whether the file is one of Frozen's: a JSON list, where ours is an object."""
    if Path(path).suffix != ".json":
        return False
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(64).lstrip().startswith("[")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


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
        raise InputError(f"wanted a file of episodes ({FORMAT}), {path} is none: spae-icl run writes one")
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
        check_names(names, {shot.label for _, support, query in rows for shot in (*support, query)})
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
        shown = shown_names(names, labels, dice)
        episodes.append(
            Episode(name, {label: shown[label] for label in labels}, tuple(support), query, control.key)
        )
    return episodes
