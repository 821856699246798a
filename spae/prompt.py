"""What to tell a language model that has never heard of this project, so that it writes a picture in words.

The text is to be pasted into any chat; what comes back is read by `spae.text.parse`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spae.errors import InputError
from spae.pyramid import Pyramid

if TYPE_CHECKING:
    from spae.tokenizer import Tokenizer

# Of the photographs that come with the project, the example where none is given.
EXAMPLE, EXAMPLE_FILE = "two dogs", "dogs.jpg"
# What whoever pastes the text fills in.
WISH = "[say here what it shows]"


def write_prompt(
    tokenizer: "Tokenizer",
    layers: int | None = None,
    examples: Mapping[str, Any] | None = None,
    as_json: bool = False,
) -> str:
    """The text to paste. Where it asks for layers below those whose words say what is seen, it lists
    `Tokenizer.palette`.

    Args:
        layers: how many layers are asked for; by default those whose words say what is seen, all where a tokenizer
            has none of these.
        examples: what is seen -> its pyramid, or image (of whatever kind `Tokenizer.encode` takes). By default a
            photograph that comes with the project.
        as_json: ask for JSON instead of words alone.

    Raises:
        InputError: bad layers, an example with fewer or of another tokenizer, no examples, or none given for a
            tokenizer of clips.
    """
    meaning = tokenizer.config.meaning_layers
    layers = tokenizer.shape.check_layers((meaning or None) if layers is None else layers)
    if examples is None:
        examples = {EXAMPLE: _shipped(tokenizer)}
    if not examples:
        raise InputError(
            "prompt: wanted at least one example, got none: leave examples out for a shipped one"
        )
    shown = [
        f"For example, {what}:\n\n{_example(_pyramid(tokenizer, one), layers, as_json)}"
        for what, one in examples.items()
    ]
    count = tokenizer.shape.tokens(layers)
    task = (
        f"Write a picture in words. A program turns them into a small picture; it sees nothing but the words. Write "
        f"exactly {count} word{'s' if count > 1 else ''}: {layers} grid{'s' if layers > 1 else ''}, the first for the "
        "whole picture, the others finer and finer, each row by row from the top left to the bottom right:"
    )
    rules = (
        f"Take common English words in small letters: the program knows {len(tokenizer.vocabulary):,}. No names, "
        "numbers or hyphens. A word may come more than once."
    )
    if meaning < layers:
        rules += _paint(meaning, layers - meaning, tokenizer.palette)
    form = "JSON only" if as_json else "the words only"
    end = f"Answer with {form}, in the form of the example, with nothing before or behind."
    grids = "\n".join(_grid(number, grid) for number, grid in enumerate(tokenizer.shape.layers[:layers], 1))
    return "\n\n".join((f"{task}\n{grids}", rules, *shown, end, f"The picture to write: {WISH}")) + "\n"


def _paint(meaning: int, grids: int, palette: Mapping[str, Sequence[str]]) -> str:
    """What to know of the words of so many grids that are below the first `meaning` ones."""
    said = " The words are"
    if meaning:
        first = f"{meaning} grids" if meaning > 1 else "grid"
        said = (
            f" The words of the first {first} say what is seen in their places. Those of the finer grids are"
        )
    said += " used like paint, whatever they mean elsewhere: learn them from the example"
    if not palette:
        return f"{said}."
    said += " and from the list of colours below."
    if grids > 1:
        said += (
            " At each place the words of those grids mix, so paint it the same colour in every one of them."
        )
    colours = "\n".join(f"{colour}: {' '.join(words)}" for colour, words in palette.items())
    return f"{said}\n\nWords that paint:\n{colours}"


def _shipped(tokenizer: "Tokenizer") -> Pyramid:
    from spae.demo import PHOTOGRAPHS
    from spae.images import open_image

    if tokenizer.frames > 1:
        raise InputError("prompt: the bundle is of clips, and none comes with the project: give an example")
    return tokenizer.encode(open_image(PHOTOGRAPHS / EXAMPLE_FILE))


def _pyramid(tokenizer: "Tokenizer", example: Any) -> Pyramid:
    if not isinstance(example, Pyramid):
        return tokenizer.encode(example)
    tokenizer.check(example)
    return example


def _grid(number: int, grid: tuple[int, ...]) -> str:
    *outer, rows, columns = (1, *grid) if len(grid) == 1 else grid
    said = "1 word" if rows * columns == 1 else f"{rows} rows of {columns} words"
    frames = f"{outer[0]} times " if outer and outer[0] > 1 else ""
    return f"grid {number}: {frames}{said}"


def _example(pyramid: Pyramid, layers: int, as_json: bool) -> str:
    words = pyramid.words(layers)
    if as_json:
        return json.dumps({"layers": words}, ensure_ascii=False)
    lines = []
    for layer, ids in zip(words, pyramid.ids, strict=False):
        across = ids.shape[-1]
        lines.append("\n".join(" ".join(layer[i : i + across]) for i in range(0, len(layer), across)))
    return "\n\n".join(lines)
