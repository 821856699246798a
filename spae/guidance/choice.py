"""Which guidance: by the names that configs and commands give."""

from typing import TYPE_CHECKING, Literal, cast

from spae.errors import InputError
from spae.guidance.protocol import Guidance

if TYPE_CHECKING:
    from spae.guidance.clip import Clip
    from spae.guidance.clip_jax import ClipJax
    from spae.guidance.conse import Conse

FORMS = '"conse", "clip:PATH" or "clip-jax:NAME_OR_PATH"'
Kind = Literal["conse", "clip", "clip-jax"]


def parse(name: str) -> tuple[Kind, str]:
    """The kind of a guidance's name, and where its weights are; nowhere of "conse", whose packages have them.

    Raises:
        InputError: a name of no form that there is.
    """
    kind, _, place = name.partition(":")
    if name != "conse" and (kind not in ("clip", "clip-jax") or not place):
        raise InputError(f"guidance must be {FORMS}, got {name!r}")
    return cast(Kind, kind), place


def load_guidance(name: str) -> "Conse | Clip | ClipJax":
    """The guidance of a name: "conse"; "clip:PATH" with a file or folder of CLIP's weights; or "clip-jax:NAME_OR_PATH"
    with a model of the package clip-jax.

    Raises:
        InputError: another name, or the weights are not there or damaged.
    """
    # Loaded late: a config checks its names, and --help should not wait for networks.
    from spae.guidance.clip import Clip
    from spae.guidance.clip_jax import ClipJax
    from spae.guidance.conse import Conse

    kind, place = parse(name)
    if kind == "clip":
        return Clip(place)
    return ClipJax(place) if kind == "clip-jax" else Conse()


def load_clip(name: str) -> Guidance:
    """The guidance of a name that is a CLIP's; a path alone is that of "clip:PATH".

    Raises:
        InputError: the weights are not there or damaged.
    """
    return load_guidance(name if name.startswith(("clip:", "clip-jax:")) else f"clip:{name}")
