"""How the weights of a bundle came about, by what it says itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DATA = ("train", "train_split", "mixture")  # what a config trains on


@dataclass(frozen=True)
class History:
    """Of the run that made a bundle, and of all that it went on from; 0 and () for what none of them says.

    Args:
        steps: of all runs.
        images: different ones that were trained on; those of the same data, by what the bundle calls it, count once.
        seconds: of all runs.
        devices: of the last run that names any.
    """

    steps: int
    images: int
    seconds: float
    devices: tuple[str, ...]

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "History":
        """Of what a bundle says (`Tokenizer.info`, `spae.bundle.read`)."""
        runs = []
        run = info.get("training")
        while run:
            runs.append(run)
            run = run.get("initial")  # how the bundle was trained whose weights the run began with
        images: dict[str, int] = {}
        for one in runs:
            data = one.get("config", {}).get("data", {})
            key = json.dumps([data.get(name) for name in _DATA])
            images[key] = max(images.get(key, 0), one.get("images", 0))
        return cls(
            sum(one.get("config", {}).get("optimizer", {}).get("steps", 0) for one in runs),
            sum(images.values()),
            sum(one.get("seconds", 0) for one in runs),
            next((tuple(map(str, one["devices"])) for one in runs if one.get("devices")), ()),
        )
