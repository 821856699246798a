"""What defines a connector (`spae.connector`). Apart from it, and without JAX: a training config is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spae.bounds import Positive, check_fields
from spae.errors import InputError

Kind = Literal["frozen", "linear", "mlp", "multilayer"]
Look = Literal["pooled", "map", "layers"]  # what of the trunk is taken, see `spae.guidance.features.features`
LOOKS: Mapping[Kind, Look] = {"frozen": "pooled", "linear": "map", "mlp": "map", "multilayer": "layers"}
FROZEN_TOKENS = 2  # of kind "frozen", for each image
IMAGE = "<image>"  # in a text: here stands one
TRUNKS = '"efficientnet" or "clip:PATH"'


@dataclass(frozen=True, kw_only=True)
class ConnectorConfig:
    """What defines a connector, with the trunk in front of it and the language model behind.

    Raises:
        InputError: another kind, or a grid where there is no map.
    """

    kind: Kind  # of map, and of what it takes: see the table of docs/connectors.md
    # Side of the square of tokens, to which the trunk's map is pooled; None: as many as the map has cells.
    grid: Positive | None = None

    def __post_init__(self) -> None:
        check_fields(self, "connector.")
        if self.kind == "frozen" and self.grid is not None:
            raise InputError(
                f"connector.grid: kind 'frozen' has no map to pool, got {self.grid}: leave it out"
            )

    @property
    def look(self) -> Look:
        """What of the trunk it takes."""
        return LOOKS[self.kind]


def parse_trunk(name: str) -> tuple[str, str]:
    """The kind of a trunk's name, and where its weights are; nowhere of "efficientnet", which a package has.

    Raises:
        InputError: a name of no form that there is.
    """
    kind, _, place = name.partition(":")
    if name != "efficientnet" and (kind != "clip" or not place):
        raise InputError(f"wanted the trunk {TRUNKS}, got {name!r}")
    return kind, place
