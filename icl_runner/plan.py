"""From settings to cells: which images, which words, which questions. No model is asked here."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_runner import constraints, episodes, nonsense
from icl_runner.data.examples import Example, ExampleSet
from icl_runner.episodes import Episode, Names
from icl_runner.settings import Settings
from icl_runner.tasks import Cell, TextCell, caption, classify, interpret, shuffled, vqa
from spae import bundle
from spae.errors import InputError

if TYPE_CHECKING:
    from icl_runner.data.pyramids import Pyramids
    from icl_runner.tasks.drawing import Judge, Progress
    from spae.tokenizer import Tokenizer

# The columns of the published tables: (task induction, shots, repeats).
PAPER = (
    (False, 1, 0),
    (True, 1, 0),
    (True, 3, 0),
    (True, 5, 0),
    (True, 1, 1),
    (True, 1, 3),
    (True, 1, 5),
)


class Plan:
    """The cells of a run, and what their logs say of where they came from.

    Raises:
        InputError: settings that do not fit each other or the data.
        BundleError: no such tokenizer.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._bundle_sha256 = bundle.sha256(settings.bundle)
        self.episodes: dict[str, Sequence[Episode]] = {}  # by the name of the cell, of `classify` only
        self._photographs: dict[str, str] = {}  # cells share them
        makers = {
            "classify": self._classify,
            "caption": self._caption,
            "vqa": self._vqa,
            "interpret": self._interpret,
            "generate": self._generate,
            "transform": self._transform,
        }
        if settings.task not in makers:
            raise InputError(f"wanted a task of {', '.join(makers)}; got {settings.task!r}")
        self.cells: list[Cell] = makers[settings.task]()

    def metadata(self, cell: Cell) -> dict[str, Any]:
        """What the log of a cell says of it, under the key "spae"."""
        return {
            "spae": {
                "task": cell.task,
                "cell": dict(cell.setting),
                "bundle": self.settings.bundle,
                "bundle_sha256": self._bundle_sha256,
                "data": self.examples.name,
                "data_fingerprint": self.examples.fingerprint,
                "seed": self.settings.seed,
                "version": version("spae"),
            }
        }

    def record(self) -> dict[str, Any]:
        """The settings as JSON, with the identity of everything they name: equal records, equal runs."""
        settings = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        cells = {cell.name: self.metadata(cell)["spae"] for cell in self.cells}
        samples = {cell.name: list(cell.ids) for cell in self.cells}
        return {"settings": settings, "cells": cells, "samples": samples}

    @cached_property
    def examples(self) -> ExampleSet:
        """The data."""
        from icl_runner.data import sets

        settings = self.settings
        if settings.task == "caption":
            return sets.captioned(settings.data, settings.split)
        if settings.task == "vqa":
            return sets.asked(settings.data, settings.split)
        if settings.task == "generate" and settings.drawing.condition == "caption":
            return sets.captioned(settings.data, settings.split)
        if settings.task in ("interpret", "transform") or _is_frozen(settings.episodes_file):
            return sets.pictured(settings.data, settings.split)
        return sets.labelled(settings.data, settings.split)

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        import spae

        return spae.load(self.settings.bundle)

    @cached_property
    def pyramids(self) -> "Pyramids":
        from icl_runner.data.pyramids import Pyramids

        return Pyramids(self.tokenizer, self.examples)

    def words(self, image_keys: Iterable[str], layers: int) -> dict[str, str]:
        """Image key -> the words of its first layers, as they stand in a prompt."""
        from spae.text import render

        pyramids = self.pyramids(sorted(set(image_keys)))
        return {key: render(pyramid, layers) for key, pyramid in pyramids.items()}

    def photograph(self, image_key: str) -> str:
        """An image as those see it who read the log: a data URL, no more than a few kilobytes."""
        from icl_runner.pictures.comparison import thumbnail

        if image_key not in self._photographs:
            self._photographs[image_key] = thumbnail(self.examples.image(image_key))
        return self._photographs[image_key]

    def _classify(self) -> list[Cell]:
        settings = self.settings
        columns: Sequence[tuple[bool, int, int]] = PAPER
        if settings.columns != "paper":
            columns = list(itertools.product((settings.induction,), settings.shots, settings.repeats))
        drawn: list[tuple[tuple[bool, int, int], list[Episode]]] = []
        kind_of_names = settings.names
        if settings.episodes_file is not None:
            listed = self._listed()
            kind_of_names = self._kind_of_names(listed)
            # The number of shots is the file's: of the columns, those that have it.
            columns = list(
                dict.fromkeys((induction, listed[0].shots, repeats) for induction, _, repeats in columns)
            )
            for induction, shots, repeats in columns:
                again = [dataclasses.replace(one, induction=induction, repeats=repeats) for one in listed]
                drawn.append(((induction, shots, repeats), again))
        else:
            names: Names = "nonsense" if settings.names == "nonsense" else self.examples.class_names
            for ways, column in itertools.product(settings.ways, columns):
                induction, shots, repeats = column
                found = episodes.draw(
                    self.examples.labels,
                    ways,
                    shots,
                    settings.count,
                    settings.seed,
                    names=names,
                    induction=induction,
                    repeats=repeats,
                )
                drawn.append((column, found))
        every = [episode for _, found in drawn for episode in found]
        # With class names as words there is nothing to tokenize, and no layers.
        depths = settings.layers if settings.words == "image" else (0,)
        constrains = constraints.supports(settings.model)
        cells: list[Cell] = []
        for layers in depths:
            words = self._image_words(every, layers) if layers else self._class_words(every)
            for (induction, shots, repeats), found in drawn:
                setting = {
                    "ways": found[0].ways,
                    "shots": shots,
                    "induction": induction,
                    "repeats": repeats,
                    "names": kind_of_names,
                    "layers": layers,
                    "tokens_per_image": self._tokens(layers),
                    "words": settings.words,
                }
                if settings.control and episodes.controlled_within(found, self.examples.labels):
                    setting["control"] = "another class of the episode"
                made = classify.items(found, words, constrains=constrains, control=settings.control)
                cell = TextCell(_name("classify", setting), "classify", setting, made, self.photograph)
                self.episodes[cell.name] = found
                cells.append(cell)
        return cells

    def _listed(self) -> list[Episode]:
        settings = self.settings
        path = settings.episodes_file or ""
        names: Names = "nonsense" if settings.names == "nonsense" else self.examples.class_names
        if Path(path).suffix == ".csv":
            found = episodes.read_v2l(path, names)
        elif _is_frozen(path):
            found = episodes.read_frozen(path, settings.data)
        else:
            found = episodes.read(path)
        if not found:
            raise InputError(f"wanted episodes, {path} has none")
        sizes = sorted({(episode.ways, episode.shots) for episode in found})
        if len(sizes) > 1:
            shown = " and ".join(f"{ways}-way {shots}-shot" for ways, shots in sizes[:3])
            raise InputError(
                f"wanted as many ways and shots in every episode, {path} has {shown}: they are columns of their own, "
                "give a file for each"
            )
        return found[: settings.count]

    def _kind_of_names(self, listed: Sequence[Episode]) -> str:
        """ "real" or "nonsense"; ours and Frozen's files of episodes bring their names, V2L's take those asked for."""
        path = Path(self.settings.episodes_file or "")
        if path.suffix == ".csv":
            return self.settings.names
        shown = {name for episode in listed for name in episode.names.values()}
        # The benchmark with made-up names is called so by its authors.
        made_up = path.name.startswith("open_ended") or shown <= set(nonsense.WORDS)
        return "nonsense" if made_up else "real"

    def _image_words(self, every: Sequence[Episode], layers: int) -> dict[str, str]:
        keys = _keys(every)
        images = {key: self.examples[key].image_key for key in keys}
        words = self.words(images.values(), layers)
        return {key: words[image] for key, image in images.items()}

    def _class_words(self, every: Sequence[Episode]) -> dict[str, str]:
        """The true class's name of every image; of the control's, too."""
        found = {}
        for key in _keys(every):
            label = self.examples[key].label
            if label is None:
                raise InputError(f"--words class-name: wanted the class of every image, {key} has none")
            found[key] = self.examples.class_names[label]
        return found

    def _tokens(self, layers: int) -> int:
        return self.tokenizer.shape.tokens(layers) if layers else 0

    def _caption(self) -> list[Cell]:
        usable = [example for example in self.examples.examples if example.captions]
        return self._few_shot(usable, "caption", caption.items)

    def _vqa(self) -> list[Cell]:
        usable = [example for example in self.examples.examples if example.question and example.answers]
        return self._few_shot(usable, "vqa", vqa.items)

    def _few_shot(self, usable: Sequence[Example], task: str, items: Any) -> list[Cell]:
        """Cells whose queries share their examples in context, which are drawn first: no query's image is in it."""
        settings = self.settings
        cells: list[Cell] = []
        order = shuffled(usable, settings.seed, lambda example: example.key)
        for shots, layers in itertools.product(settings.shots, settings.layers):
            support = order[:shots]
            taken = {example.image_key for example in support}
            left = [example for example in order[shots:] if example.image_key not in taken]
            queries, others = _with_others(left, settings, task)
            words = self.words([one.image_key for one in (*support, *queries)] + others, layers)
            setting = {"shots": shots, "layers": layers, "tokens_per_image": self._tokens(layers)}
            made = items(support, queries, others, words, control=settings.control)
            cells.append(TextCell(_name(task, setting), task, setting, made, self.photograph))
        return cells

    def _interpret(self) -> list[Cell]:
        settings = self.settings
        usable = [
            example
            for example in self.examples.examples
            if interpret.names(example, self.examples.class_names)
        ]
        if not usable:
            raise InputError(
                f"interpret: wanted images with a class or a caption, {self.examples.name} has none"
            )
        queries, others = _with_others(
            shuffled(usable, settings.seed, lambda example: example.key), settings, "interpret"
        )
        cells: list[Cell] = []
        for layers in settings.layers:
            words = self.words([one.image_key for one in queries] + others, layers)
            setting = {"layers": layers, "tokens_per_image": self._tokens(layers)}
            made = interpret.items(
                queries, others, words, self.examples.class_names, control=settings.control
            )
            cells.append(TextCell(_name("interpret", setting), "interpret", setting, made, self.photograph))
        return cells

    def _generate(self) -> list[Cell]:
        from icl_runner.tasks import generate

        settings, drawing = self.settings, self.settings.drawing
        return [
            generate.cell(
                self.examples,
                self.tokenizer,
                self.pyramids,
                condition=drawing.condition,
                shots=shots,
                ways=drawing.classes,
                rounds=drawing.rounds,
                progress=self._progress(layers),
                seed=settings.seed,
                bundle=settings.bundle,
                judge=self._judge(),
            )
            for shots, layers in itertools.product(settings.shots, settings.layers)
        ]

    def _transform(self) -> list[Cell]:
        from icl_runner.tasks import transform

        settings, drawing = self.settings, self.settings.drawing
        return [
            transform.cell(
                self.examples,
                self.tokenizer,
                self.pyramids,
                kind=drawing.kind,
                context=drawing.context,
                shots=shots,
                queries=settings.count,
                rounds=drawing.rounds,
                first=drawing.first,
                last=drawing.last,
                progress=self._progress(layers),
                seed=settings.seed,
                bundle=settings.bundle,
            )
            for shots, layers in itertools.product(settings.shots, settings.layers)
        ]

    def _progress(self, layers: int) -> "Progress":
        from icl_runner.tasks.drawing import Progress

        drawing = self.settings.drawing
        return Progress(
            layers=layers,
            autoregressive=drawing.autoregressive,
            words=drawing.segment_words,
            samples=drawing.samples,
            temperature=drawing.temperature,
            context_tokens=drawing.context_tokens,
        )

    def _judge(self) -> "Judge | None":
        """For MNIST: which digit a picture shows; the judge is trained at first, which takes a minute."""
        path = Path(self.settings.data)
        if path.suffix != ".npz" and not (path / "mnist.npz").is_file():
            return None
        from icl_runner.pictures import digits

        digits.train(path)
        return digits.classify


def _is_frozen(path: str | None) -> bool:
    """Whether the file is one of Frozen's: a JSON list, where ours is an object."""
    if path is None or Path(path).suffix != ".json":
        return False
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(64).lstrip().startswith("[")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _keys(every: Iterable[Episode]) -> list[str]:
    found = {one.other for one in every} | {one.query.key for one in every}
    return sorted(found | {shot.key for one in every for shot in one.support})


def _with_others(left: Sequence[Example], settings: Settings, task: str) -> tuple[list[Example], list[str]]:
    """The first `count` examples, and for each the image key of the next that differs in image (and in class); its own
    where there is no control, because nobody asks about it."""
    queries = list(left[: settings.count])
    others = []
    for place, query in enumerate(queries):
        around = itertools.chain(left[place + 1 :], left[:place])
        other = next(
            (
                one.image_key
                for one in around
                if one.image_key != query.image_key and (one.label is None or one.label != query.label)
            ),
            None if settings.control else query.image_key,
        )
        if other is None:
            raise InputError(
                f"{task}: wanted another image for the control of {query.key}, of another class where they have one, "
                "and none is left: give more images, or --no-control"
            )
        others.append(other)
    if not queries:
        raise InputError(f"{task}: wanted an example besides those in context, got none: ask for fewer shots")
    return queries, others


def _name(task: str, setting: Mapping[str, Any]) -> str:
    """Of a cell: its settings, but those that say nothing."""
    parts = [task]
    parts += [f"{setting['ways']}way"] if "ways" in setting else []
    parts += [f"{setting['shots']}shot"] if "shots" in setting else []
    parts += [f"repeats{setting['repeats']}"] if setting.get("repeats") else []
    parts += ["no-induction"] if setting.get("induction") is False else []
    parts += ["nonsense"] if setting.get("names") == "nonsense" else []
    parts += [f"layers{setting['layers']}" if setting["layers"] else "class-name"]
    return "-".join(parts)
