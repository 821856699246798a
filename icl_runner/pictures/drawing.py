"""Pictures to draw, in words: what is asked of a model, and how what it wrote is scored."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from icl_runner import prompts
from icl_runner.cells import Call, Cell, number
from icl_runner.pictures.encoding import to_base64
from icl_runner.pictures.progressive import (
    Decoded,
    Pair,
    Segment,
    SegmentPlan,
    WritePrompt,
    approximate_tokens,
    check_fits,
    make_plan,
    max_tokens,
    other_prompts,
    prompt_for,
    to_pyramid,
)
from icl_runner.prompts import Prompt
from spae.errors import InputError
from spae.pyramid import PyramidShape

# JAX takes seconds to import.
if TYPE_CHECKING:
    from spae.tokenizer import Tokenizer


OTHERS = 3  # conditions against which an answer's agreement with its own is weighed
CONTRASTED = (
    15  # conditions from which words tell a picture apart, at most: what is written side by side, less one
)


class Judge(Protocol):
    """Tells whether pictures show what they should.

    Attributes:
        setting: for the log: what its figures depend on.
    """

    @property
    def setting(self) -> Mapping[str, Any]: ...

    def prepare(self) -> None:
        """What takes long: before the first judgement, and not in a dry run."""

    def __call__(
        self, images: UInt8[np.ndarray, "n h w 3"], label: str
    ) -> Mapping[str, Bool[np.ndarray, " n"]]:
        """Of each measure, whether each picture shows what is called so."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How pictures are decoded; see `icl_runner.pictures.progressive`.

    Args:
        layers: of the pyramid that are written: 4 are 85 words.
        autoregressive: how many of them are AR.
        segment_words: of a segment, at most; or for each layer.
        samples: answers that are asked for, of which one is taken.
        temperature: 0 is greedy; more than one sample needs more.
        choose: the one that is taken: the likeliest, or that of the most agreement with its condition.
        contrast: how much words are drawn to what a picture's condition makes likelier than the other conditions of its
            context do; 0 is not at all.
        context_tokens: what the model can read and write at a time.

    Raises:
        InputError: several samples at temperature 0: they would all be the same; a choice of one.
    """

    layers: int
    autoregressive: int
    segment_words: int | tuple[int, ...]
    samples: int
    temperature: float
    context_tokens: int
    choose: Literal["likelihood", "agreement"] = "likelihood"
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or (self.samples > 1 and not self.temperature):
            raise InputError(
                f"pictures: wanted a temperature above 0 to draw {self.samples} samples from, and none below 0; got "
                f"{self.temperature}"
            )
        if not 0 <= self.contrast < math.inf:
            raise InputError(f"pictures: wanted a contrast from 0; got {self.contrast}")
        if self.choose == "agreement" and self.samples == 1:
            raise InputError("pictures: wanted several samples to choose by agreement from, got 1")

    def plan(self, shape: PyramidShape) -> SegmentPlan:
        """The segments of a picture; see `make_plan`."""
        return make_plan(shape, self.layers, self.autoregressive, self.segment_words)

    def setting(self, shape: PyramidShape) -> dict[str, Any]:
        """For the log: what tells two ways of decoding apart."""
        told = {
            "layers": self.layers,
            "tokens_per_image": shape.tokens(self.layers),
            "autoregressive": self.autoregressive,
            "segment_words": self.segment_words
            if isinstance(self.segment_words, int)
            else " ".join(map(str, self.segment_words)),
            "samples": self.samples,
            "temperature": self.temperature,
        }
        if self.choose != "likelihood":
            told["choose"] = self.choose
        if self.contrast:
            told["contrast"] = self.contrast
        return told


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawing:
    """One picture to draw, and what it is measured against.

    Args:
        id: of the sample.
        shown: the condition as tables and pages show it.
        condition: as the model sees it: a text, or the words of an image.
        pairs: the examples in context.
        target, target_words: the picture wanted, and its words.
        copied_words: the words of a picture of the context: the control "_copy".
        input, input_words: of a transform, the image it starts from: the controls "_nothing", "_nothing_words"; with
            the context it bounds what can be had by repeating words: "_held".
        label: what the picture should show, for a judge, and to tell it from what others ask for.
    """

    id: str
    shown: str
    condition: str | tuple[str, ...]
    pairs: tuple[Pair, ...]
    target: UInt8[np.ndarray, "s s 3"]
    target_words: tuple[str, ...]
    copied_words: tuple[str, ...]
    input: UInt8[np.ndarray, "s s 3"] | None = None
    input_words: tuple[str, ...] | None = None
    label: str | None = None

    def others(self) -> list[str | tuple[str, ...]]:
        """The conditions of the context that ask for something else, in its order."""
        found = dict.fromkeys(
            pair.condition
            for pair in self.pairs
            if pair.condition != self.condition and (self.label is None or pair.label != self.label)
        )
        return list(found)

    def held(self) -> tuple[str, ...]:
        """The target's words where the context or the input has them, at whatever place, else the input's own: what
        could be had by repeating words. For drawings with an input."""
        assert self.input_words is not None
        seen = set(self.input_words).union(*(pair.words for pair in self.pairs))
        seen.update(*(pair.condition for pair in self.pairs if isinstance(pair.condition, tuple)))
        return tuple(
            wanted if wanted in seen else given
            for wanted, given in zip(self.target_words, self.input_words, strict=True)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class DrawingCell(Cell):
    """A cell whose answers are pictures.

    Args:
        decoding: how they are written.
        write: the prompt that asks for words.
        tokenizer, bundle: by which words are pictures, and its name.
        judge: tells whether pictures show what they should, of drawings with a label.

    Raises:
        InputError: a prompt does not fit into `decoding.context_tokens`, or nothing in a context asks for something
            else, where answers are chosen by agreement or words by contrast.
    """

    drawings: tuple[Drawing, ...]
    decoding: Decoding
    write: WritePrompt
    tokenizer: "Tokenizer"
    bundle: str
    seed: int
    judge: Judge | None = None

    def __post_init__(self) -> None:
        plan = self.decoding.plan(self.tokenizer.shape)
        for drawing in self.drawings:
            chooses = self.decoding.choose == "agreement"
            if (chooses or self.decoding.contrast) and not drawing.others():
                raise InputError(
                    f"pictures: wanted an example in context that shows something else than {drawing.id}, to choose by "
                    f"{'agreement' if chooses else 'contrast'}; got none: show other classes or images, or choose by "
                    "likelihood"
                )
            check_fits(
                plan,
                drawing.pairs,
                drawing.condition,
                self.write,
                approximate_tokens,
                self.decoding.context_tokens,
            )

    @property
    def ids(self) -> list[str]:
        return [drawing.id for drawing in self.drawings]

    @property
    def sharing(self) -> tuple[int, int]:
        """The pictures of one context; all segments of one."""
        context = self.drawings[0].pairs
        sharing = sum(1 for _ in itertools.takewhile(lambda one: one.pairs == context, self.drawings))
        return sharing, len(self.decoding.plan(self.tokenizer.shape).segments) * self.decoding.samples

    def contrasted(self, drawing: Drawing) -> list[str | tuple[str, ...]]:
        """The conditions from which the words of a drawing tell it apart; none without `decoding.contrast`."""
        return drawing.others()[:CONTRASTED] if self.decoding.contrast else []

    def calls(self) -> Iterable[Call]:
        plan = self.decoding.plan(self.tokenizer.shape)
        for drawing in self.drawings:
            for part in plan.segments:
                prompt = prompt_for(part, drawing.pairs, drawing.condition, drawing.target_words, self.write)
                call = Call(
                    f"layer {part.layer}, words {part.start + 1} to {part.stop}",
                    prompt,
                    max_tokens(part.count),
                    system=prompts.chat_words(part.count),
                    against=self._others(part, drawing, prompt, self.contrasted(drawing)),
                )
                yield from [call] * self.decoding.samples
                if self.decoding.choose == "agreement":
                    yield from self._weighings(part, drawing, prompt)

    def _others(
        self, part: Segment, drawing: Drawing, own: Prompt, conditions: Sequence[str | tuple[str, ...]]
    ) -> tuple[Prompt, ...]:
        return other_prompts(part, drawing.pairs, conditions, own, drawing.target_words, self.write)

    def _weighings(self, part: Segment, drawing: Drawing, own: Prompt) -> Iterable[Call]:
        """The calls that weigh the samples of a segment."""
        words = " ".join(drawing.target_words[part.start : part.stop])
        choices = tuple(f"{words} {number}" for number in range(self.decoding.samples))
        others = self._others(part, drawing, own, drawing.others()[:OTHERS])
        for prompt in (own, *others) if others else ():
            yield Call("agreement", prompt, max_tokens(part.count), choices, likelihoods=True)

    def score(self, drawing: Drawing, decoded: Decoded) -> tuple[dict[str, float], dict[str, Any]]:
        """The values of a sample, and what shows it again; all pictures from words of the same layers."""
        from icl_runner.pictures import comparison

        layers, shape, vocabulary = self.decoding.layers, self.tokenizer.shape, self.tokenizer.vocabulary
        chance = comparison.random_words(shape, layers, vocabulary, number(self.seed, drawing.id))
        words = {"": decoded.words, "_oracle": drawing.target_words, "_copy": drawing.copied_words}
        if drawing.input_words is not None:
            words |= {"_nothing_words": drawing.input_words, "_held": drawing.held()}
        pyramids = {suffix: to_pyramid(flat, layers, shape, vocabulary) for suffix, flat in words.items()}
        pyramids["_random"] = chance
        drawn = dict(zip(pyramids, self.tokenizer.decode(list(pyramids.values())), strict=True))
        if drawing.input is not None:
            drawn["_nothing"] = drawing.input
        values = comparison.compare(drawn, drawing.target, comparison.stlpips())
        wanted = pyramids["_oracle"].flat_ids
        values |= {f"words{s}": float(np.mean(one.flat_ids == wanted)) for s, one in pyramids.items()}
        if self.judge is not None and drawing.label is not None:
            for key, shows_n in self.judge(np.stack(list(drawn.values())), drawing.label).items():
                values |= {f"{key}{s}": float(one) for s, one in zip(drawn, shows_n, strict=True)}
        metadata = {
            "condition": drawing.shown,
            "words": " ".join(decoded.words),
            "layers": layers,
            "repairs": dict(decoded.repairs),
            "target_png": to_base64(drawing.target),
            "input_png": None if drawing.input is None else to_base64(drawing.input),
            "target_words": " ".join(drawing.target_words),
        }
        return values, metadata


def one_of(pairs: Sequence[Pair], seed: int, id: str) -> Pair:
    """One of the examples in context, drawn at random for this sample."""
    return pairs[number(seed, f"copied {id}") % len(pairs)]
