"""What is to be said of images: captions, names of classes, or conversations as LLaVA's files have them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spae import class_names
from spae.connector_config import IMAGE
from spae.conversations import Conversation, read_conversations
from spae.errors import InputError
from spae.sources import FileSource, Source, open_source
from tokenizer_train.connector.config import PairsConfig
from tokenizer_train.held_out import Part, hold_out

END = "\n"  # of what is said: the runner's answers are lines

# Pairs of what is given, with <image> once, in the first of them, and what is to be said behind it.
Dialogue = tuple[tuple[str, str], ...]
Said = tuple[Source, list[Dialogue]]  # images, and of each a dialogue


def open_dialogues(config: PairsConfig) -> tuple[Said, Said, list[str]]:
    """What there is to train on, what there is for validation, and lines that say what was left out.

    Raises:
        InputError: nothing there, no image with such a text, a class without a name, or an image that is named in a
            file of conversations and is not there.
    """
    train, said, left_out = open_said(config.train, config.train_split, config)
    if config.validation is None:
        # By image: all that is said of one is on one side.
        train, validation = hold_out(train)
        said_too, place = said, config.train
    else:
        place = config.validation
        validation, said_too, more = open_said(place, config.validation_split, config)
        left_out += more
    return _with(train, said, config.train, config), _with(validation, said_too, place, config), left_out


def _with(source: Source, said: Mapping[str, list[Dialogue]], place: str, config: PairsConfig) -> Said:
    """An image for each dialogue: one with several comes several times, one without any does not."""
    found = [said.get(key, []) for key in source.keys]
    if not any(found):
        raise InputError(f"{place}: wanted images with a {config.text}, none has one: see data.text")
    counts_n = np.array([len(dialogues) for dialogues in found])
    if (counts_n != 1).any():
        source = Part(source, np.repeat(np.arange(len(source)), counts_n), f"with a {config.text}")
    return source, [dialogue for dialogues in found for dialogue in dialogues]


def open_said(
    path: str, split: str | None, config: PairsConfig
) -> tuple[Source, dict[str, list[Dialogue]], list[str]]:
    """Images, by their keys what is said of them, and lines that say what was left out; see `open_dialogues`."""
    if config.text == "conversation":
        return _conversations(Path(path), config)
    source = open_source(path, split=split)
    if config.text == "caption":
        texts = [_first_line(source.caption(i)) for i in range(len(source))]
    else:
        table = class_names.table_beside(path)
        names = class_names.english((one for one in source.labels if one is not None), Path(path), table)
        texts = [None if one is None else names[one] for one in source.labels]
    said: dict[str, list[Dialogue]] = {
        key: [((config.prompt, f" {text}{END}"),)]
        for key, text in zip(source.keys, texts, strict=True)
        if text
    }
    missing = len(source) - len(said)
    images, them = ("image has", "is") if missing == 1 else ("images have", "are")
    left_out = f"{missing:,} {images} no {config.text} and {them} left out"
    return source, said, [left_out] if missing else []


def _first_line(caption: str | None) -> str | None:
    lines = (caption or "").splitlines()
    return " ".join(lines[0].split()) if lines else None


def _conversations(path: Path, config: PairsConfig) -> tuple[Source, dict[str, list[Dialogue]], list[str]]:
    """Those of a file that are about one image."""
    reading = read_conversations(path)
    said: dict[str, list[Dialogue]] = {}
    for conversation in reading.entries:
        if conversation.image is not None and _is_plain(conversation):
            said.setdefault(conversation.image, []).append(_dialogue(conversation, config.prompt))
    if not said:
        raise InputError(f"{path}: wanted conversations about an image each, got {reading.summary()}")
    left_out = [f"{path.name}: {reading.summary()}"] if reading.faults else []
    others = len(reading.entries) - sum(map(len, said.values()))
    if others:
        left_out.append(f"{path.name}: {others:,} left out, not about one image that is shown first")
    return FileSource(Path(config.images or path.parent), sorted(said)), said, left_out


def _is_plain(conversation: Conversation) -> bool:
    """Whether there is one `<image>`, in the first turn, and an answer to every turn."""
    first, *others = (turn.text for turn in conversation.turns)
    return first.count(IMAGE) == 1 and not any(IMAGE in text for text in others) and len(others) % 2 == 1


def _dialogue(conversation: Conversation, prompt: str) -> Dialogue:
    first, *others = (turn.text for turn in conversation.turns)
    texts = [first.replace(IMAGE, prompt), *others]
    return tuple(
        (given, f" {said.strip()}{END}") for given, said in zip(texts[::2], texts[1::2], strict=True)
    )
