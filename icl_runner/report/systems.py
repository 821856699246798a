"""The systems that are compared: which one answered, what it is honest to claim of it, and what it took to train.

All of it is read from the bundles that the logs name, none from what somebody calls a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from icl_runner.cells import CONNECTOR
from icl_runner.report.labels import WORD_COUNT
from icl_runner.results import CellResult
from spae import bundle
from spae.errors import InputError
from spae.history import History


@dataclass(frozen=True)
class System:
    """A row of the table, whether it was measured or not.

    Args:
        name: as its authors call it.
        label: "native" (the published method, with a frozen language model) or "stage-1 only" (the connector is the
            published one, the language model that was tuned behind it is not).
    """

    name: str
    label: str


# By what a bundle says that it is.
SYSTEMS = {
    "words": System("SPAE words", "native"),
    "lqae": System("LQAE", "native"),
    "frozen": System("Frozen", "native"),
    "linear": System("LLaVA, linear", "stage-1 only"),
    "mlp": System("LLaVA, MLP", "stage-1 only"),
    "multilayer": System("ViP-LLaVA, several layers", "stage-1 only"),
}


@dataclass(frozen=True)
class Facts:
    """What a bundle tells of its system; "–" for what it does not.

    Args:
        kind: a key of SYSTEMS.
        parameters: that were trained.
        tokens: for each image.
        training: how long on what, and on how many different images.
    """

    kind: str
    parameters: str
    tokens: str
    training: str


def facts(cell: CellResult) -> Facts:
    """Of the system that answered.

    Raises:
        BundleError: its bundle is not there.
        InputError: it is another than that of the log, or of a system that has no row here.
    """
    connected = cell.model.startswith(CONNECTOR)
    name = cell.model.removeprefix(CONNECTOR) if connected else cell.bundle
    if not connected and bundle.sha256(name) != cell.bundle_sha256:
        raise InputError(
            f"the bundle {name!r} that is here now is not the one of the logs of {cell.task}: put the one the run "
            "was made with in its place"
        )
    info, parameters = _read(name)
    config = info["config"]
    kind = config.get("kind") if connected else _tokenizer_kind(config)
    tokens = str(info.get("tokens", "–")) if connected else str(cell.setting.get(WORD_COUNT, "–"))
    if kind not in SYSTEMS:
        raise InputError(
            f"{name} is of a system that the comparison has no row for ({kind}): leave its logs out"
        )
    return Facts(kind, f"{parameters:,}", tokens, _training(History.of(info)))


@cache
def _read(name: str) -> tuple[dict[str, Any], int]:
    """What a bundle says, and how many parameters were trained; frozen networks, the words and their vectors were
    not."""
    from spae.parts import FROZEN  # takes JAX along

    info, files = bundle.read(name)
    params = [files[file] for file in ("params.safetensors", "connector.safetensors") if file in files]
    trained = [
        tensor for tensors in params for key, tensor in tensors.items() if key.partition(".")[0] not in FROZEN
    ]
    return info, sum(tensor.size for tensor in trained)


def _tokenizer_kind(config: Mapping[str, Any]) -> str:
    if len(config["pyramid"]) > 1 and config["codebook"] != "learned":
        return "words"
    return "lqae" if config.get("language_model") == "masked" else "a tokenizer of one layer"


def _training(history: History) -> str:
    if not history.seconds:
        return "–"
    hours = history.seconds / 3600
    time = f"{hours:.1f} h" if hours >= 1 else f"{history.seconds / 60:.0f} min"
    return f"{time} on {' '.join(history.devices) or 'an unknown device'}, {history.images:,} images"
