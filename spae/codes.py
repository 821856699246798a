"""The "words" of a learned codebook: names of codes, which stand for nothing in any language.

Everything that holds words holds them too: bundles, pyramids, text and its parser.
"""

import numpy as np

from spae.errors import InputError
from spae.vocabulary import View, Vocabulary

_SEED = 0


def code_vocabulary(count: int, width: int) -> Vocabulary:
    """The vocabulary code0, code1, .. and the values that their codes begin with.

    Args:
        count: V, how many codes.
        width: c; the values are float32 (V, c), normal, of expected squared length 1, the same on every machine.

    Raises:
        InputError: a count or width below 1.
    """
    if count < 1 or width < 1:
        raise InputError(f"codes: wanted at least one code of at least one dimension; got {count} of {width}")
    values_vc = np.random.default_rng(_SEED).normal(size=(count, width)) / np.sqrt(width)
    return Vocabulary(
        tuple(f"code{i}" for i in range(count)),
        np.arange(count, dtype=np.int32),
        values_vc.astype(np.float32),
        {"meaning": View.raw(), "appearance": View.raw()},
        {"codes": {"generator": "numpy default_rng", "seed": _SEED}},
    )
