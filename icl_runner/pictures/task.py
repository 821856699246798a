"""Tasks whose answers are pictures in words: what `generate` and `transform` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from icl_runner import constraints
from icl_runner.cells import EMBEDDED
from icl_runner.data.images import Images
from icl_runner.figures import Control, Measure
from icl_runner.options import option, optional, whole, wholes
from icl_runner.pictures.drawing import Decoding, Drawing, DrawingCell, Judge, WritePrompt
from icl_runner.task import Task
from spae.errors import InputError

# inspect-ai takes three seconds to import.
if TYPE_CHECKING:
    import inspect_ai

PIXELS: tuple[Measure, ...] = (
    Measure("psnr", "PSNR, dB", decimals=2),
    Measure("ssim", "SSIM"),
    Measure("stlpips", "STLPIPS (lower is better)", higher_is_better=False),
    Measure("words", "the target's words in their places, %", 100, 1),
)


@dataclass(frozen=True, kw_only=True)
class DrawingTask(Task):
    """A task whose answers are pictures, written in words segment by segment; see `icl_runner.pictures.progressive`."""

    draws = True
    measures = PIXELS
    controls = (
        Control("_oracle", "the target's own words, decoded", ceiling=True),
        Control("_held", "the target's words where context or input have them, decoded", ceiling=True),
        Control("_nothing", "control: the input left as it is"),
        Control("_nothing_words", "control: the input's own words, decoded"),
        Control("_copy", "control: an image of the context"),
        Control("_random", "control: random words"),
    )

    # layers of the pyramid that are written, each number a row (4: 85 words)
    layers: Annotated[tuple[int, ...], wholes(1)] = (4,)
    rounds: Annotated[int, whole(1)] = 1  # each with another context; of generate the next seed's
    # layers whose words are written one after the other; those of the rest stand alone
    autoregressive: Annotated[int, whole(0)] = 3
    segment_words: Annotated[int, whole(1)] = 16  # words of one call, at most
    # the same for each layer, as many numbers as layers, in place of --segment-words
    segments: Annotated[tuple[int, ...], wholes(1), optional("N [N ..]")] = ()
    samples: Annotated[int, whole(1)] = 1  # answers of which one is taken
    # the likeliest; or the one that its condition makes likelier than other conditions of the context do
    choose: Literal["likelihood", "agreement"] = "likelihood"
    temperature: Annotated[float, option("X")] = 0.0  # 0 is greedy
    # how much words are drawn to what their condition makes likelier than the context's other conditions do (spae-lm)
    contrast: Annotated[float, option("X")] = 0.0
    context_tokens: Annotated[int, whole(1)] = 8192  # what the model can read

    def decoding(self, layers: int) -> Decoding:
        """How pictures of so many layers are written.

        Raises:
            InputError: options that do not fit each other or the model.
        """
        if self.choose == "agreement" and not constraints.tells_likelihoods(self.model, self.model_args):
            raise InputError(
                "--choose agreement wants a model that tells how likely a text is: spae-lm/.., or completions/.. with "
                f"-M dialect=llama.cpp or vllm; got {self.model}"
            )
        if self.contrast and not self.model.startswith(EMBEDDED):
            raise InputError(
                "--contrast wants the probabilities of all words under several conditions, which spae-lm/.. has and no "
                f"endpoint tells; got {self.model}: take --samples K --choose agreement"
            )
        return Decoding(
            layers=layers,
            autoregressive=min(self.autoregressive, layers),
            segment_words=self.segments or self.segment_words,
            samples=self.samples,
            temperature=self.temperature,
            context_tokens=self.context_tokens,
            choose=self.choose,
            contrast=self.contrast,
        )

    def drawing_cell(
        self,
        images: Images,
        kind: str,
        layers: int,
        setting: Mapping[str, Any],
        drawings: Sequence[Drawing],
        write: WritePrompt,
        judge: Judge | None = None,
    ) -> DrawingCell:
        """The cell TASK-KIND-..words of these drawings; `write`: the prompt that asks for them.

        Raises:
            InputError: options that do not fit each other, or a prompt that does not fit into `context_tokens`.
        """
        decoding, shape = self.decoding(layers), images.tokenizer.shape
        return DrawingCell(
            name=f"{self.name}-{kind}-{shape.tokens(layers)}words",
            task=self.name,
            setting={**setting, **decoding.setting(shape), **(judge.setting if judge else {})},
            drawings=tuple(drawings),
            decoding=decoding,
            write=write,
            tokenizer=images.tokenizer,
            bundle=self.bundle,
            seed=self.seed,
            judge=judge,
        )

    def build(self, cell: DrawingCell, metadata: Mapping[str, Any]) -> "inspect_ai.Task":
        if cell.judge is not None:
            cell.judge.prepare()
        from icl_runner.pictures.asking import drawing_task

        return drawing_task(cell, metadata)
