"""From a task with its settings to cells, and what their logs say of where they came from. No model is asked here."""

import dataclasses
import hashlib
import json
from importlib.metadata import version
from typing import Any

from icl_runner import shown
from icl_runner.cells import CONNECTOR, EMBEDDED, Cell
from icl_runner.data.images import Images
from icl_runner.task import Task
from spae import bundle
from spae.weights.hub import HUB, locate


class Plan:
    """The cells of a run.

    Raises:
        InputError: settings that do not fit each other or the data.
        BundleError: no such tokenizer.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        model = task.model.removeprefix(EMBEDDED)
        # Of an embedded model of the hub: its name may stand for other weights tomorrow.
        self._revision = locate(model).revision if model.startswith(HUB) else None
        self._bundle_sha256 = bundle.sha256(task.bundle)
        connector = task.model.removeprefix(CONNECTOR) if task.model.startswith(CONNECTOR) else None
        if connector is not None:
            shown.check_sees(task.draws, task.layers)
        self.images = Images(task.examples(), task.bundle, connector)
        self.cells: list[Cell] = list(task.cells(self.images))

    def metadata(self, cell: Cell) -> dict[str, Any]:
        """What the log of a cell says of it, under the key "spae"."""
        revision = {"model_revision": self._revision} if self._revision else {}
        told = json.dumps([dataclasses.asdict(episode) for episode in cell.episodes])
        digest = hashlib.sha256(told.encode()).hexdigest()
        episodes = {"episodes_sha256": digest} if cell.episodes else {}
        return {
            "spae": {
                "task": cell.task,
                "cell": dict(cell.setting),
                "bundle": self.task.bundle,
                "bundle_sha256": self._bundle_sha256,
                "data": self.images.examples.name,
                "data_fingerprint": self.images.examples.fingerprint,
                "examples_sha256": self.images.examples.known_sha256,
                "seed": self.task.seed,
                "version": version("spae"),
                **revision,
                **episodes,
            }
        }

    def record(self) -> dict[str, Any]:
        """The settings as JSON, with the identity of everything they name: equal records, equal runs."""
        settings = json.loads(json.dumps({"task": self.task.name, **dataclasses.asdict(self.task)}))
        cells = {cell.name: self.metadata(cell)["spae"] for cell in self.cells}
        for one in cells.values():
            one.pop("episodes_sha256", None)  # a run keeps the episodes themselves
        samples = {cell.name: list(cell.ids) for cell in self.cells}
        return {"settings": settings, "cells": cells, "samples": samples}

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings as they are where nobody says otherwise, as JSON: what records lack from before there were
        these."""
        fields = [one for one in dataclasses.fields(self.task) if one.default is not dataclasses.MISSING]
        return json.loads(json.dumps({one.name: one.default for one in fields}))
