"""Data sets made of columns (parquet) or features (TFDS): which of them holds what, and the names of classes."""

from typing import Any

from spae.errors import InputError

IMAGE_COLUMNS = ("image", "img", "jpg", "png")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
CAPTION_COLUMNS = ("caption", "captions", "text")


def column_of(columns: list[str], wanted: tuple[str, ...]) -> str | None:
    """The first of the wanted columns that is there."""
    return next((name for name in wanted if name in columns), None)


def label_among(names: list[str], value: Any) -> str | None:
    """The name of class `value`; None for -1, which Hugging Face and TFDS give to images whose class is not told."""
    # What went through pandas with values missing holds its numbers as 1.0.
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(value, str) and value in names:
        return value
    if not isinstance(number, int) or not -1 <= number < len(names):
        raise InputError(
            f"wanted the label of an image to be the number of one of {len(names)} classes, got {value!r}"
        )
    return None if number == -1 else names[number]
