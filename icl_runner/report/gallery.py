"""What a model answered, beside the photographs; and the pictures it made in context, beside what they were to be,
decoded again from the words in the logs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from icl_runner import prompts, scoring, tasks
from icl_runner.pictures.encoding import to_base64
from icl_runner.results import CellResult, Sample
from spae.errors import InputError


@dataclass(frozen=True)
class Exhibit:
    """One generation.

    Args:
        pictures: (caption, PNG in base64), in order.
        figures: what was measured of it.
    """

    condition: str
    pictures: tuple[tuple[str, str], ...]
    figures: dict[str, float]
    words: str
    repairs: dict[str, int]


@dataclass(frozen=True)
class Answered:
    """One answer in text.

    Args:
        photograph: a data URL, "" where the log has none.
        choices: what there was to choose from, in the order of the prompt; empty where anything could be answered.
        right: None where nobody judges.
    """

    photograph: str
    words: str
    question: str
    choices: tuple[str, ...]
    truth: str
    answer: str
    right: bool | None


def rule_of(cell: CellResult) -> str | None:
    """The key of the measure by which answers are shown as right or wrong; None where nothing is."""
    answers = [sample.values for sample in cell.samples if sample.metadata.get("answers")]
    return next((rule for rule in tasks.find(cell.task).rules if any(rule in one for one in answers)), None)


def answered(cell: CellResult, count: int) -> list[Answered]:
    """The first right and the first wrong answers of a cell with text answers, by id, half of `count` each; where
    nothing is right or wrong (captions) the first `count`."""
    samples = [sample for sample in cell.samples if sample.metadata.get("answers")]
    rule = rule_of(cell)
    if rule is None:
        return [_answered(sample, None) for sample in samples[:count]]
    judged = [_answered(sample, rule) for sample in samples if rule in sample.values]
    right, wrong = ([one for one in judged if one.right is kind][: count // 2] for kind in (True, False))
    return right + wrong


def _answered(sample: Sample, rule: str | None) -> Answered:
    metadata = sample.metadata
    answers = metadata["answers"]
    answer = answers[rule] if rule in answers else next(iter(answers.values()))
    references = metadata.get("references") or [""]
    return Answered(
        sample.photograph,
        metadata.get("words", ""),
        metadata.get("question", ""),
        tuple(metadata.get("names", ())),
        metadata.get("truth", references[0]),
        scoring.finished(answer, prompts.STOP),
        None if rule is None else bool(sample.values[rule]),
    )


def exhibits(cell: CellResult, count: int) -> list[Exhibit]:
    """The first `count` samples of a cell of `generate` or `transform`, by id.

    Raises:
        BundleError: the bundle named in the log is not there.
        InputError: a sample without words, or words of another bundle.
    """
    shown = [sample for sample in cell.samples if sample.metadata.get("words")][:count]
    if not shown:
        return []
    import spae
    from spae import bundle

    if bundle.sha256(cell.bundle) != cell.bundle_sha256:
        raise InputError(
            f"the bundle {cell.bundle!r} that is here now is not the one of the logs of {cell.task}: "
            "put the one the run was made with in its place"
        )
    tokenizer = spae.load(cell.bundle)
    # All at once: one compiled decoder for every number of layers.
    layers = [int(sample.metadata["layers"]) for sample in shown]
    made = _decode(tokenizer, [sample.metadata["words"] for sample in shown], layers)
    wanted = _decode(tokenizer, [sample.metadata.get("target_words") or "" for sample in shown], layers)
    return [_exhibit(*one) for one in zip(shown, made, wanted, strict=True)]


def _decode(tokenizer, texts: Sequence[str], layers: Sequence[int]) -> list:
    """An image for every text; None for an empty one."""
    images: list[UInt8[np.ndarray, "s s 3"] | None] = [None] * len(texts)
    for depth in sorted(set(layers)):
        places = [i for i, text in enumerate(texts) if text and layers[i] == depth]
        if not places:
            continue
        decoded = tokenizer.decode([texts[i] for i in places], depth)
        for i, image in zip(places, decoded, strict=True):
            images[i] = image
    return images


def _exhibit(sample: Sample, made: np.ndarray, wanted: np.ndarray | None) -> Exhibit:
    metadata = sample.metadata
    pictures = [(name, metadata.get(f"{name}_png")) for name in ("input", "target")]
    pictures.append(("written by the model", to_base64(made)))
    if wanted is not None:
        pictures.append(("the target's own words", to_base64(wanted)))
    return Exhibit(
        str(metadata.get("condition", "")),
        tuple((name, png) for name, png in pictures if png),
        {key: value for key, value in sorted(sample.values.items()) if "_" not in key},
        metadata["words"],
        metadata.get("repairs") or {},
    )
