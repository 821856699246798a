"""Few-shot classification of images by their words: which of the named classes is the query's?"""

import dataclasses
import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from icl_runner import constraints, prompts, scoring
from icl_runner.cells import TextCell, shuffled
from icl_runner.data.examples import ExampleSet
from icl_runner.data.images import NO_IMAGE, Images
from icl_runner.episodes.calls import Asked, items
from icl_runner.episodes.draw import Episode, Names, Shot, controlled_within, draw
from icl_runner.episodes.files import is_frozen, read_any
from icl_runner.episodes.protocols import PAPER, PROTOCOLS, Column
from icl_runner.figures import BLIND, OTHER, Measure
from icl_runner.options import Count, NameOrPath, Switch, optional, whole, wholes
from icl_runner.task import ColumnTable, task
from icl_runner.texts import choosing
from icl_runner.texts.task import TextTask
from spae.errors import InputError

OPEN = Measure("open", "open-ended exact match", 100, 1, share=True)
CONSTRAINED = Measure("constrained", "constrained to the names", 100, 1, share=True)
# Of chat models, whose decoding cannot be restricted: they are told the names instead.
INSTRUCTED = Measure("instructed", "told to choose among the names", 100, 1, share=True)
# Nothing is written: the name of the highest likelihood, as it is, calibrated, averaged.
LIKELIHOODS = (
    Measure("likeliest", "the likeliest of the names", 100, 1, share=True),
    Measure("calibrated", "the likeliest of the names, calibrated", 100, 1, share=True),
    Measure("orders", "the likeliest of the names over orders of the examples", 100, 1, share=True),
)
# What a protocol says, or a file of episodes, and so the command line does not.
_OF_PROTOCOL = ("ways", "shots", "repeats", "induction", "columns", "names", "words", "episodes_file")
_OF_FILE = ("ways", "shots")
NEUTRAL = 64  # images of whose words content-free prompts are made

CLASS_NAME = "class-name"  # in place of an image's words: the ceiling


class EpisodeTable(ColumnTable):
    """Cells side by side, as in the published tables: one for every number of ways, kind of names, data and rule."""

    always = PAPER
    about: ClassVar[Mapping[str, str]] = {
        "open": "The model writes freely; right is exactly the name, its end included. The floor is 0; a model that "
        "writes one of the names without looking gets 1/ways, which its control shows.",
        "constrained": "Decoding is restricted to the names of the episode. The floor is 1/ways.",
        "instructed": "The model is told to answer with one of the names; nothing holds it to them. "
        "The floor is 1/ways for one that does as it is told.",
        "likeliest": "Nothing is written: right is that the true name, with the end of its line, is the likeliest of "
        "the names. The floor is 1/ways.",
        "calibrated": "As the likeliest of the names, each measured against its share behind content-free prompts: the "
        "same examples, then words of as many other images, one of each (Zhao et al. 2021). The floor is 1/ways.",
        "orders": "As the likeliest of the names, by the mean log-probability over several orders of the examples. The "
        "floor is 1/ways.",
    }
    about_published = (
        "Reported rows are of others' work on Real-Name mini-ImageNet, and were not measured here."
    )
    ceiling = "ceiling: the class's name as the words"
    told = ("ways", "names", "shots", "induction", "repeats", "words", "layers", "control")
    unit = "episodes"

    def column(self, setting: Mapping[str, Any]) -> Column:
        return bool(setting.get("induction", True)), int(setting["shots"]), int(setting.get("repeats", 0))

    def head(self, column: Column) -> str:
        induction, shots, repeats = column
        head = f"{shots}-shot"
        if not induction:
            head = f"no induction, {head}"
        return f"{head}, {repeats} repeat{'s' if repeats > 1 else ''}" if repeats else head

    def group(self, setting: Mapping[str, Any]) -> tuple[int, str]:
        return setting["ways"], setting.get("names", "real")

    def title(self, group: tuple[int, str]) -> str:
        ways, names = group
        return f"{ways}-way classification, {names} names"

    def floor(self, group: tuple[int, str], measure: Measure) -> str:
        return "0.0" if measure == OPEN else f"{100 * scoring.floor(group[0]):.1f}"

    def published(
        self, group: tuple[int, str], measure: Measure
    ) -> list[tuple[str, Sequence[float | None], float | None]]:
        ways, names = group
        if names != "real":
            return []
        reported = json.loads((files("icl_runner") / "published.json").read_text("utf-8"))["rows"]
        return [
            (
                f"{one['method']}, {one['tokens']} tokens ({one['status']}: {one['source']})",
                one["values"],
                one["average"],
            )
            for one in reported
            if one["ways"] == ways and one["rule"] == measure.key
        ]


@task
@dataclass(frozen=True, kw_only=True)
class Classify(TextTask):
    """Few-shot classification of images by their words.

    example: spae-icl run classify --model spae-lm/default --data mini-imagenet --split test --ways 2 5
    """

    title = "Classification"
    measures = (OPEN, CONSTRAINED, INSTRUCTED, *LIKELIHOODS)
    controls = (OTHER, BLIND)
    rules = ("constrained", "instructed", "open")
    table = EpisodeTable()

    # a folder of a folder for each class, tar shards, mini-ImageNet, mnist.npz, ..
    data: NameOrPath
    ways: Annotated[tuple[int, ...], wholes(2)] = (2,)  # classes to choose from
    shots: Annotated[tuple[int, ...], wholes(1)] = (1,)  # different images of each class in context
    repeats: Annotated[tuple[int, ...], wholes(0)] = (0,)  # extra copies of the context
    induction: Switch = True  # do not name the classes first
    # the seven columns of the published table, in place of shots, repeats, induction
    columns: Annotated[Literal["paper"] | None, optional("paper")] = None
    names: Literal["real", "nonsense"] = "real"  # what the classes are called
    # class-name: the true name in place of each image's words, the ceiling
    words: Literal["image", "class-name"] = "image"
    count: Count = 200  # episodes of each column
    blind: Switch = False  # ask everything again without the query's image
    # episodes written by a run, Frozen's JSON or V2L's CSV, in place of drawn ones
    episodes_file: Annotated[str | None, optional("FILE")] = None
    # a paper's columns, names and rule on its authors' own files of episodes, which lie in the folder of the data
    protocol: Annotated[Literal["frozen-open", "v2l"] | None, optional("{frozen-open,v2l}")] = None
    # content-free prompts that calibrate the names' likelihoods, as a column of its own (0: none)
    content_free: Annotated[int, whole(0)] = 0
    # orders of the examples over which the names' likelihoods are averaged, as a column of its own (1: none)
    orders: Annotated[int, whole(1)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol is not None:
            self._leave_out(f"--protocol {self.protocol}", _OF_PROTOCOL)
        elif self.episodes_file is not None:
            # V2L's files alone leave open what the classes are called.
            names = () if Path(self.episodes_file).suffix == ".csv" else ("names",)
            self._leave_out("--episodes-file", (*_OF_FILE, *names))

    def _leave_out(self, said: str, names: Sequence[str]) -> None:
        default = {field.name: field.default for field in dataclasses.fields(self)}
        given = [name for name in names if getattr(self, name) != default[name]]
        if given:
            raise InputError(
                f"{said} says itself what is asked: leave "
                f"{', '.join('--' + name.replace('_', '-') for name in given)} out"
            )

    def notes(self) -> list[str]:
        if self.protocol is None:
            return []
        protocol = PROTOCOLS[self.protocol]
        told = [f"the protocol of {protocol.paper}; not as there:", *protocol.differs]
        told.append(f"model: {self.model}, reading words of the bundle {self.bundle}")
        if protocol.rule == "constrained" and not constraints.supports(self.model):
            told.append("decoding: not restricted, this model is told the names (instructed)")
        return [*told, f"episodes: the first {self.count} of each file (--examples)"]

    def examples(self) -> ExampleSet:
        from icl_runner.data import sets

        if self.protocol is not None:
            return (sets.pictured if PROTOCOLS[self.protocol].bare else sets.labelled)(self.data, self.split)
        # Frozen's files say themselves what the classes are.
        named = self.episodes_file is not None and is_frozen(self.episodes_file)
        return (sets.pictured if named else sets.labelled)(self.data, self.split)

    def cells(self, images: Images) -> list[TextCell]:
        asked = self._asked(images.examples)
        drawn, kind_of_names = self._episodes(images.examples)
        every = [episode for _, found in drawn for episode in found]
        keys = _keys(every) | {shot.key for shot in asked.neutral}
        # With class names as words there is nothing to tokenize, and no layers.
        depths = self.layers if self.words == "image" else (0,)
        cells = []
        for layers in depths:
            words = _image_words(keys, images, layers) if layers else _class_words(keys, images.examples)
            words[NO_IMAGE] = images.blank if layers else ""
            for column, found in drawn:
                setting = self._setting(column, found, kind_of_names, images, layers)
                cells.append(
                    self.cell(
                        _name(setting),
                        setting,
                        items(found, words, asked),
                        images,
                        tuple(found),
                    )
                )
        return cells

    def _asked(self, examples: ExampleSet) -> Asked:
        """What is asked about each episode.

        Raises:
            InputError: likelihoods are wanted of a model that does not tell them.
        """
        if self.content_free or self.orders > 1:
            choosing.check_likelihoods("--content-free and --orders", self.model, self.model_args)
        neutral = []
        if self.content_free:
            neutral = shuffled(examples.examples, self.seed, lambda one: f"neutral {one.key}")[:NEUTRAL]
        return Asked(
            constrains=constraints.supports(self.model),
            rules=(PROTOCOLS[self.protocol].rule,) if self.protocol else ("open", "constrained"),
            control=self.control,
            blind=self.blind,
            content_free=self.content_free,
            neutral=[Shot(one.key, one.label or "") for one in neutral],
            orders=self.orders,
        )

    @staticmethod
    def score(
        shown: Mapping[str, Any], answers: Mapping[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """1 or 0 for every answer, by the rule of its key; the controls' answers against the same truth. Likelihoods
        are mappings, name -> log-probability, and are scored together."""
        truth, names = shown["truth"], shown["names"]

        def right(key: str, answer: str) -> bool:
            if key.startswith("open"):
                return scoring.open_match(answer, truth, prompts.STOP)
            return choosing.chosen(key, answer, names) == truth

        texts = {key: answer for key, answer in answers.items() if isinstance(answer, str)}
        values = {key: float(right(key, answer)) for key, answer in texts.items()}
        for suffix in ("", OTHER.suffix, BLIND.suffix):
            chosen = choosing.by_likelihood(answers, suffix)
            values |= {f"{key}{suffix}": float(name == truth) for key, name in chosen.items()}
        metadata = {key: shown[key] for key in ("truth", "names", "words", "query_key")}
        return values, {"answers": dict(answers), **metadata}

    @classmethod
    def describe(cls, setting: Mapping[str, Any]) -> tuple[str, Collection[str]]:
        told = {"ways", "shots", "induction", "repeats"}
        if setting.get("words") == "image":  # as ever
            told.add("words")
        return f"{setting['ways']}-way {cls.table.head(cls.table.column(setting))}", told

    @classmethod
    def is_ceiling(cls, setting: Mapping[str, Any]) -> bool:
        return setting.get("words") == CLASS_NAME

    def _columns(self) -> list[Column]:
        if self.columns == "paper":
            return list(PAPER)
        return list(itertools.product((self.induction,), self.shots, self.repeats))

    def _episodes(self, examples: ExampleSet) -> tuple[list[tuple[Column, list[Episode]]], str]:
        """The episodes of each column, and what they call the classes: "real" or "nonsense"."""
        names: Names = "nonsense" if self.names == "nonsense" else examples.class_names
        if self.protocol is not None:
            protocol = PROTOCOLS[self.protocol]
            return list(protocol.episodes(self.data, names, self.count)), protocol.names
        if self.episodes_file is not None:
            listed, kind_of_names = read_any(self.episodes_file, self.data, names)
            return self._repeated(listed[: self.count]), kind_of_names
        made = []
        for ways, column in itertools.product(self.ways, self._columns()):
            induction, shots, repeats = column
            found = draw(
                examples.labels,
                ways,
                shots,
                self.count,
                self.seed,
                names=names,
                induction=induction,
                repeats=repeats,
            )
            made.append((column, found))
        return made, self.names

    def _repeated(self, listed: Sequence[Episode]) -> list[tuple[Column, list[Episode]]]:
        """A file's episodes in each column. The number of shots is the file's: of the columns, those that have it."""
        columns = [(induction, listed[0].shots, repeats) for induction, _, repeats in self._columns()]
        return [
            (column, [dataclasses.replace(one, induction=column[0], repeats=column[2]) for one in listed])
            for column in dict.fromkeys(columns)
        ]

    def _setting(
        self, column: Column, found: Sequence[Episode], kind_of_names: str, images: Images, layers: int
    ) -> dict[str, Any]:
        induction, shots, repeats = column
        setting = {
            "ways": found[0].ways,
            "shots": shots,
            "induction": induction,
            "repeats": repeats,
            "names": kind_of_names,
            "layers": layers,
            "tokens_per_image": images.tokens(layers) if layers else 0,
            "words": self.words,
        }
        # What is not asked for is not told, so that settings stay what they were before there was such a thing.
        setting |= {"content_free": self.content_free} if self.content_free else {}
        setting |= {"orders": self.orders} if self.orders > 1 else {}
        setting |= {"protocol": self.protocol} if self.protocol else {}
        if self.control and controlled_within(found, images.examples.labels):
            setting["control"] = "another class of the episode"
        return setting


def _image_words(keys: Collection[str], images: Images, layers: int) -> dict[str, str]:
    image_keys = {key: images.examples[key].image_key for key in sorted(keys)}
    words = images.words(image_keys.values(), layers)
    return {key: words[image] for key, image in image_keys.items()}


def _class_words(keys: Collection[str], examples: ExampleSet) -> dict[str, str]:
    """The true class's name of every image; of the control's, too."""
    found = {}
    for key in sorted(keys):
        label = examples[key].label
        if label is None:
            raise InputError(f"--words class-name: wanted the class of every image, {key} has none")
        found[key] = examples.class_names[label]
    return found


def _keys(every: Iterable[Episode]) -> set[str]:
    """Of all images of the episodes."""
    found = {one.other for one in every} | {one.query.key for one in every}
    return found | {shot.key for one in every for shot in one.support}


def _name(setting: Mapping[str, Any]) -> str:
    """Of a cell: its settings, but those that say nothing."""
    parts = ["classify", f"{setting['ways']}way", f"{setting['shots']}shot"]
    parts += [f"repeats{setting['repeats']}"] if setting["repeats"] else []
    parts += [] if setting["induction"] else ["no-induction"]
    parts += ["nonsense"] if setting["names"] == "nonsense" else []
    parts += [f"layers{setting['layers']}" if setting["layers"] else CLASS_NAME]
    return "-".join(parts)
