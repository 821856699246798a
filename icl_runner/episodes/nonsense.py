"""Made-up names for classes: pronounceable, and no words of English.

Frozen (arXiv 2106.13884) calls classes "dax" and "blicket", so that a model cannot know a name beforehand.
"""

from itertools import product

_PARTS = (
    ("bl", "dr", "gl", "k", "pl", "v", "w", "z"),
    ("a", "e", "i", "o", "u"),
    ("ck", "ff", "m", "p", "v", "zz"),
    ("et", "oo", "op", "id"),
)
# What the parts also make, and texts use: names and words known to the frequency list of wordfreq.
_USED = {
    "blacket",
    "dravet",
    "dravid",
    "kemet",
    "komet",
    "placket",
    "plumet",
    "vapid",
    "vivid",
    "wicket",
    "wocket",
}

WORDS = tuple(word for word in map("".join, product(*_PARTS)) if word not in _USED)
