"""Published protocols of few-shot classification on mini-ImageNet: their columns, episodes, rule and names.

The files of episodes are the authors' own; the images are of those who have them.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from icl_runner.episodes import files
from icl_runner.episodes.draw import Episode, Names
from spae.errors import InputError

Column = tuple[bool, int, int]  # task induction, shots, repeats
# Those of the published tables.
PAPER: tuple[Column, ...] = (
    (False, 1, 0),
    (True, 1, 0),
    (True, 3, 0),
    (True, 5, 0),
    (True, 1, 1),
    (True, 1, 3),
    (True, 1, 5),
)
WAYS = (2, 5)


@dataclass(frozen=True)
class Protocol:
    """What a paper fixes.

    Args:
        rule: by which answers are scored there, as `icl_runner.episodes.calls.Asked` names it.
        names: what its classes are called, "real" or "nonsense".
        bare: whether the images of its files need no classes, because the files name them.
        file: (ways, shots) -> where its episodes are, below the folder of the data.
        read: (file, folder of the images, label -> name) -> its episodes.
        differs: what is never as in the paper.
    """

    paper: str
    rule: str
    names: str
    bare: bool
    file: Callable[[int, int], str]
    read: Callable[[Path, Path, Names], list[Episode]]
    differs: tuple[str, ...]

    def episodes(self, data: str | Path, names: Names, count: int) -> Iterator[tuple[Column, list[Episode]]]:
        """Every column with its episodes, the first `count` of each file.

        Raises:
            InputError: a file is not there, or not what its name says.
        """
        folder = Path(data)
        wanted = {(ways, shots): folder / self.file(ways, shots) for ways in WAYS for _, shots, _ in PAPER}
        missing = [str(file) for file in wanted.values() if not file.is_file()]
        if missing:
            raise InputError(
                f"wanted the files of episodes of {self.paper} below {folder}, {len(missing)} of {len(wanted)} are "
                f"not there, such as {missing[0]}: put them there as their authors name them"
            )
        read = {size: self._read(file, folder, names, size)[:count] for size, file in wanted.items()}
        for ways in WAYS:
            for induction, shots, repeats in PAPER:
                listed = read[ways, shots]
                yield (
                    (induction, shots, repeats),
                    [dataclasses.replace(one, induction=induction, repeats=repeats) for one in listed],
                )

    def _read(self, file: Path, folder: Path, names: Names, size: tuple[int, int]) -> list[Episode]:
        found = self.read(file, folder, names)
        other = next((one for one in found if (one.ways, one.shots) != size), None)
        if other is not None:
            raise InputError(
                f"{file}: wanted {size[0]}-way {size[1]}-shot episodes, as its name says; {other.id} is "
                f"{other.ways}-way {other.shots}-shot: copy it again"
            )
        return found


def _v2l(file: Path, folder: Path, names: Names) -> list[Episode]:
    """With the names in alphabetical order, as their prompt lists them."""
    return [
        dataclasses.replace(one, names=dict(sorted(one.names.items(), key=lambda pair: pair[1])))
        for one in files.read_v2l(file, names)
    ]


PROTOCOLS = {
    "frozen-open": Protocol(
        paper="Frozen, Open-Ended mini-ImageNet (arXiv 2106.13884)",
        rule="open",
        names="nonsense",
        bare=True,
        file=lambda ways, shots: f"open_ended_mi_shots_{shots}_ways_{ways}_all_questions.json",
        read=lambda file, folder, names: files.read_frozen(file, folder),
        differs=(
            'prompt: "Input: <words>" and "Output: dax" between ###; in the paper "This is a dax." behind each image, '
            'and "Answer with dax or blicket." as the task induction',
            "what the model sees of an image: words; in the paper two vectors, trained through the language model",
        ),
    ),
    "v2l": Protocol(
        paper="V2L-Tokenizer, mini-ImageNet (arXiv 2403.07874)",
        rule="constrained",
        names="real",
        bare=False,
        file=lambda ways, shots: f"fewshot_split/{ways}_way_{shots}_shot.csv",
        read=_v2l,
        differs=(
            "prompt: ours; in the paper's code \"For each of the following input output pairs, output is one of "
            "['a' or 'b']\", and \"Input: < words >\"",
            "names of classes: spelt with spaces; in the paper's code with underscores, as ImageNet's",
            "decoding: along the names; in the paper's code each token may be one that any name has at its place, and "
            "without task induction any token at all",
            "what the model sees of an image: words of this bundle; in the paper global words of its own tokenizer",
        ),
    ),
}
