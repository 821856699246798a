"""Text that is none: half of a surrogate pair, which JSON and file names can hold and UTF-8 cannot."""

import re

from spae.errors import InputError

_SURROGATE = re.compile("[\ud800-\udfff]")


def check_unicode(text: str, name: str) -> None:
    """That a text is Unicode; `name`: what the message calls it.

    Raises:
        InputError: it holds half a surrogate pair.
    """
    found = _SURROGATE.search(text)
    if found is not None:
        raise InputError(
            f"{name}: wanted Unicode text; got half a surrogate pair (U+{ord(found[0]):04X}) at character "
            f"{found.start()}: leave it out"
        )
