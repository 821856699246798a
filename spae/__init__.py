"""SPAE: images as pyramids of words of a frozen language model, and back.

>>> import spae
>>> tokenizer = spae.load("default")
>>> pyramid = tokenizer.encode(image)
>>> pyramid.words(layers=2)
>>> tokenizer.decode(pyramid, layers=5)
"""

from typing import TYPE_CHECKING, Any

from spae.errors import BundleError, InputError
from spae.pyramid import Pyramid, PyramidShape

if TYPE_CHECKING:
    from spae.tokenizer import Tokenizer, load

__all__ = ["BundleError", "InputError", "Pyramid", "PyramidShape", "Tokenizer", "load"]


def __getattr__(name: str) -> Any:
    # JAX takes a second to import: `spae --help` and whoever needs only pyramids do not wait for it.
    if name in ("Tokenizer", "load"):
        from spae import tokenizer

        return getattr(tokenizer, name)
    raise AttributeError(f"module 'spae' has no attribute {name!r}")
