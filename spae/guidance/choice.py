"""Which guidance: by the names that configs and commands give."""

from spae.errors import InputError
from spae.guidance.clip import Clip
from spae.guidance.conse import Conse


def load_guidance(name: str) -> Conse | Clip:
    """The guidance of a name: "conse", or "clip:PATH" with a file or folder of CLIP's weights.

    Raises:
        InputError: another name, or the weights are not there or damaged.
    """
    kind, _, path = name.partition(":")
    if kind == "clip" and path:
        return Clip(path)
    if name != "conse":
        raise InputError(f'a guidance is "conse" or "clip:PATH", not {name!r}')
    return Conse()
