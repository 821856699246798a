"""What a training run is made of: frozen dataclasses, each field declared once and checked once.

An experiment is a Python file in `configs/` that builds a `Config`; `spae-train FILE --section.field value`
changes single fields. Field names follow the project; the symbol of the paper (section 4 of SPAE,
arXiv 2306.17842) is in brackets.
"""

import dataclasses
from typing import Annotated, Literal

from spae import bundle
from spae.architecture import AutoencoderConfig
from spae.bounds import Count, Positive, Range, Share, check, check_fields
from spae.errors import BundleError
from spae.files import bucket_errors, open_path
from spae.guidance.choice import parse
from spae.vocabulary import Vocabulary, code_vocabulary
from tokenizer_train.places import place

Weight = Annotated[float, Range(0)]
Above0 = Annotated[float, Range(0, open="low")]
Decay = Annotated[float, Range(0, 1, open="high")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which words; or, for a learned codebook, how many codes."""

    # Folder written by `spae vocab build`, or a copy of it at gs:// or s3://; or a bundle, whose words are taken.
    path: str | None = dataclasses.field(default=None, metadata=place(1))
    # Instead of a folder: so many codes, which stand for no words.
    codes: Annotated[int, Range(2)] | None = None
    width: Positive = 256  # c, of the codes
    # What the folder will hold, for `--dry-run` before it is there; a folder that is there is looked at instead.
    words: Positive | None = None  # V
    widths: tuple[Positive, Positive] | None = None  # of the appearance view and the meaning view

    def __post_init__(self) -> None:
        check_fields(self, "vocabulary.")
        check(
            (self.codes is None) == bool(self.path),
            "vocabulary.path",
            "the folder of a built vocabulary, unless vocabulary.codes is given",
            self.path,
        )

    def load(self) -> Vocabulary:
        """The words with their views; of a folder or a bundle, or codes with the names code0, code1, ..

        Raises:
            BundleError: Nothing there, or a file of the folder is missing or damaged.
        """
        if not self.path:
            return code_vocabulary(self.codes or 0, self.width)
        if not self._is_bundle():
            return Vocabulary.load(self.path)
        info, files = bundle.read(self.path, "tokenizer")
        return Vocabulary.from_parts(files["vocabulary.safetensors"], files["words.json"], info["vocabulary"])

    def is_there(self) -> bool:
        """Whether there is something to load."""
        if not self.path or self._is_bundle():
            return True
        folder = open_path(self.path)
        with bucket_errors(folder):
            return folder.exists()

    def _is_bundle(self) -> bool:
        try:
            bundle.find(self.path or "")
        except BundleError:
            return False
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedConfig:
    """How images are fed, whatever is trained on them."""

    batch_size: Positive = 256  # images per step over all devices of all processes together
    # An image that cannot be read, or a film too short: end the run, or take another of the same source in its place,
    # which the seed draws.
    damaged: Literal["error", "skip"] = "error"
    threads: Positive = 4  # reading threads of this process
    buffer: Positive = 64  # images read ahead over all threads; bounds the memory of the pipeline

    def __post_init__(self) -> None:
        check_fields(self, "data.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(FeedConfig):
    """Which images, and how they are fed."""

    # Path or glob that spae.sources.open_source understands.
    train: str = dataclasses.field(metadata=place(2))
    # (path, weight) of more images; data.train has weight 1.
    mixture: tuple[tuple[str, Above0], ...] = dataclasses.field(default=(), metadata=place(2))
    # Path or glob likewise, for the figures and pictures during training, never trained on; None: every tenth image of
    # data.train, 64 at most, is kept for that.
    validation: str | None = dataclasses.field(metadata=place(2))
    train_split: str | None = None  # of a TFDS directory: "train" if not given; None for anything else
    validation_split: str | None = None  # likewise; give one, or validation sees "train" as well
    stride: Positive = 1  # of clips: frames of the film from one frame to the next
    fps: Above0 | None = None  # of clips: frames a second instead of `stride`, where the film is a video file
    # Mirror half of the images, by the seed; the guidance's features stay, words of regions change places.
    flip: bool = True
    # Folder, or gs:// or s3://, for the guidance features of the images, which all processes see;
    # None: <run.output>/guidance.
    cache: str | None = dataclasses.field(default=None, metadata=place(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.train), "data.train", "a path or glob of images", self.train)
        check(
            all(path for path, _ in self.mixture),
            "data.mixture",
            "pairs of a path and a weight",
            self.mixture,
        )
        check(self.validation != "", "data.validation", "a path or glob of images, or None", self.validation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and switches of the losses; a weight of 0 leaves that term and its network out."""

    reconstruction: Weight = 1.0  # mean squared error over pixels in [0, 1]
    commitment: Weight = 0.33  # [beta] pull of z towards the average of its words, per layer
    adversarial: Weight = 0.1  # [lambda] non-saturating GAN
    perceptual: Weight = 0.1  # [eta] distance of features of perceptual_network
    # Whose features: the shift-tolerant LPIPS, or a ResNet-50's logits.
    perceptual_network: Literal["stlpips-vgg", "stlpips-alex", "resnet50-logits", "none"] = "stlpips-vgg"
    # Safetensors file of a ResNet-50; only resnet50-logits reads it.
    perceptual_weights: str | None = dataclasses.field(default=None, metadata=place(1))
    lecam: Weight = 1e-4  # [phi] regulariser of the discriminator
    r1: Weight = 0.0  # gradient penalty of the discriminator, instead of lecam; MAGVIT uses cost 10
    codebook: Weight = 1.0  # pull of the codes of a trained codebook towards what chose them
    semantic: Weight = 1.0  # [alpha] pull of the queries towards the words of the candidate pools
    temperature: Above0 = 1.0  # divides the squared distances in the softmax of the semantic loss
    thresholds: tuple[Share, ...] = (0.98, 0.95, 0.9, 0.85, 0.8)  # [rho_l] pool of layer l: score >= rho_l
    semantic_layers: Count = 5  # [D'] layers under the semantic loss, from the top
    # Positions drawn per layer for that loss; None: all, as in the paper.
    semantic_positions: Positive | None = None
    deal_pools: bool = False  # each position of a layer gets its own share of the pool, so that words differ
    dynamic_weight: bool = True  # [w] scale the semantic loss to the size of the appearance loss
    hub_correction: bool = False  # subtract each word's mean score over the training images
    masked_lm: Weight = 0.0  # cross entropy of the masked words, by the frozen language model (LQAE)
    masking: Share = 0.5  # share of the words that the language model sees masked; without one, nothing is
    prefix_dropout: Share = 0.0  # probability that the decoder sees a random prefix instead of all layers
    adversarial_start: Count = 0  # step from which the adversarial term acts on the autoencoder

    def __post_init__(self) -> None:
        check_fields(self, "loss.")
        check(
            self.perceptual_network != "resnet50-logits" or bool(self.perceptual_weights),
            "loss.perceptual_weights",
            "the safetensors file of a ResNet-50 where loss.perceptual_network is resnet50-logits",
            self.perceptual_weights,
        )
        check(
            self.semantic_layers <= len(self.thresholds),
            "loss.semantic_layers",
            f"0 .. {len(self.thresholds)} (one threshold per layer)",
            self.semantic_layers,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam and its schedule, the same for the autoencoder and the discriminator."""

    steps: Count = 450_000  # length of the run; 0: the bundle of the start as it is
    learning_rate: Above0 = 1e-4  # peak, reached after the warm-up
    betas: tuple[Decay, Decay] = (0.0, 0.99)  # MAGVIT's
    epsilon: Above0 = 1e-8  # Adam's; a gradient that is but rounding and well above it makes a whole step
    warmup_steps: Count = 1_000  # linear, from 0
    decay: Literal["rsqrt", "cosine", "constant"] = "rsqrt"  # after the warm-up
    cooldown_steps: Count = 0  # with rsqrt: the last steps go linearly to 0
    ema: Decay = 0.999  # decay of the averaged weights, which are what is evaluated and exported
    weight_decay: Weight = 0.0  # AdamW's, of all parameters, times the learning rate; 0: Adam
    clip_norm: Above0 | None = None  # global norm of the gradient; None: no clipping

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.")
        check(
            self.warmup_steps + self.cooldown_steps <= self.steps,
            "optimizer.steps",
            f"at least warmup_steps + cooldown_steps, {self.warmup_steps:,} + {self.cooldown_steps:,} (a shorter run "
            "wants fewer of these, too: --optimizer.warmup-steps, --optimizer.cooldown-steps)",
            self.steps,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """Where a run leaves what, and how often, whatever is trained."""

    # Folder, or gs://BUCKET/FOLDER: checkpoints/, tensorboard/, guidance/, bundle/.
    output: str = dataclasses.field(metadata=place(0))
    # Of the weights, the order of the images, the flips and the drawn words.
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    log_every: Positive = 50  # steps between lines and TensorBoard scalars
    evaluate_every: Positive = 5_000  # steps between figures and pictures on a fixed validation batch
    checkpoint_every: Positive = 5_000  # steps between checkpoints
    keep: Positive = 2  # newest checkpoints kept
    # Compute what happens inside the networks' blocks once more for the gradient instead of keeping it: about a third
    # of the memory for a seventh more operations (`--dry-run` tells), and the same losses.
    rematerialize: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "run.")
        scheme, remote, _ = self.output.partition("://")
        # Orbax knows of no other kind of bucket when a checkpoint in it is whole.
        check(
            bool(self.output) and (not remote or scheme == "gs"),
            "run.output",
            "a folder, such as that of a mounted bucket, or gs://BUCKET/FOLDER",
            self.output,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(RecordConfig):
    """The same, and what a tokenizer begins with."""

    # Bundle whose weights a new run begins with; one of images is inflated if the run is one of clips.
    initial: str | None = dataclasses.field(default=None, metadata=place(1))
    # Without a bundle: random weights; or linear paths and map from principal components of patches and words, and
    # networks beside them that begin by adding nothing (tokenizer_train/start.py).
    start: Literal["random", "principal"] = "random"
    # What is trained: everything, or the decoder alone, so that the words stay what they are.
    trains: Literal["all", "decoder"] = "all"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the networks; search and losses stay float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Which devices, of which processes. A run is the same whatever stands here, up to rounding."""

    data: int = -1  # groups of devices that hold the whole state; -1: as many as the devices allow
    # Devices of each group, over which parameters, their average and the optimiser are cut.
    fsdp: Positive = 1
    # HOST:PORT of process 0, the same for all; "auto": as a TPU pod, SLURM or Open MPI tells; None: one process.
    coordinator: str | None = dataclasses.field(default=None, metadata=place(0))
    # Of the run, where coordinator is HOST:PORT.
    processes: int | None = dataclasses.field(default=None, metadata=place(0))
    # Which of them this is, 0 .. processes - 1.
    process: int | None = dataclasses.field(default=None, metadata=place(0))

    def __post_init__(self) -> None:
        check(self.data == -1 or self.data >= 1, "mesh.data", "at least 1, or -1", self.data)
        check_fields(self, "mesh.")
        own = (self.processes, self.process)
        if self.coordinator in (None, "auto"):
            check(own == (None, None), "mesh.processes, mesh.process", "left out without a HOST:PORT", own)
            return
        host, _, port = self.coordinator.rpartition(":")
        check(bool(host) and port.isdigit(), "mesh.coordinator", 'HOST:PORT or "auto"', self.coordinator)
        check(
            self.processes is not None and self.process is not None and 0 <= self.process < self.processes,
            "mesh.processes, mesh.process",
            "a number and one of 0 .. number - 1 beside a HOST:PORT",
            own,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    tokenizer: AutoencoderConfig
    vocabulary: VocabularyConfig
    data: DataConfig
    run: RunConfig
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    # What a word means for an image: "conse", "clip:PATH" or "clip-jax:NAME_OR_PATH"; unused if loss.semantic is 0
    # and tokenizer.trunk "none".
    guidance: str = dataclasses.field(default="conse", metadata=place(1))
    # Hugging Face folder of the frozen BERT or RoBERTa that tokenizer.language_model "masked" asks for.
    language_model: str | None = dataclasses.field(default=None, metadata=place(1))

    def __post_init__(self) -> None:
        self._check_guidance()
        self._check_meaning()
        self._check_start()
        self._check_language_model()
        check(
            self.tokenizer.frames > 1 or (self.data.stride, self.data.fps) == (1, None),
            "data.stride, data.fps",
            "left alone unless tokenizer.frames is more than 1",
            (self.data.stride, self.data.fps),
        )
        check(
            self.loss.semantic_layers <= len(self.tokenizer.pyramid),
            "loss.semantic_layers",
            f"at most the {len(self.tokenizer.pyramid)} layers of tokenizer.pyramid",
            self.loss.semantic_layers,
        )

    def _check_guidance(self) -> None:
        for name, path in (
            ("guidance", self.guidance),
            ("language_model", self.language_model),
            ("loss.perceptual_weights", self.loss.perceptual_weights),
        ):
            check("://" not in (path or ""), name, "on this machine, if only in a mounted bucket", path)
        kind, _ = parse(self.guidance)
        check(
            kind != "clip-jax" or self.tokenizer.trunk == "none",
            "tokenizer.trunk",
            f"none with guidance {self.guidance!r}: a network of the package clip-jax cannot go into a bundle",
            self.tokenizer.trunk,
        )
        check(
            self.tokenizer.trunk in ("none", kind),
            "tokenizer.trunk",
            f"none, or the image side of guidance {self.guidance!r}: its features are what the head is trained on",
            self.tokenizer.trunk,
        )

    def _check_meaning(self) -> None:
        learned = self.tokenizer.codebook == "learned"
        check(
            learned == (self.vocabulary.codes is not None),
            "tokenizer.codebook",
            '"learned" with vocabulary.codes, and only then: trained codes are no words any more',
            self.tokenizer.codebook,
        )
        check(
            self.loss.semantic == 0 or not (learned or self.tokenizer.meaning in ("ranked", "pursuit")),
            "loss.semantic",
            '0 where tokenizer.codebook is "learned" or tokenizer.meaning "ranked" or "pursuit": nothing there learns '
            "a meaning",
            self.loss.semantic,
        )
        check(
            self.loss.prefix_dropout == 0 or not self.tokenizer.cross_attention,
            "loss.prefix_dropout",
            "0 with tokenizer.cross_attention, which sees the words of all meaning layers",
            self.loss.prefix_dropout,
        )

    def _check_start(self) -> None:
        for name, value in (
            ("loss.semantic", self.loss.semantic),
            ("loss.masked_lm", self.loss.masked_lm),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
        ):
            check(
                value == 0 or self.run.trains == "all",
                name,
                '0 where run.trains is "decoder": it changes the encoder',
                value,
            )
        check(
            self.run.trains == "all" or self.run.initial is not None,
            "run.initial",
            'a bundle where run.trains is "decoder": its words stay',
            self.run.initial,
        )
        begun = (self.tokenizer.skip, self.tokenizer.codebook, self.tokenizer.frames)
        check(
            self.run.start == "random" or begun == (True, "mapped", 1),
            "run.start",
            'random unless tokenizer.skip is True, tokenizer.codebook "mapped" and tokenizer.frames 1: these are what '
            "begins from principal components",
            self.run.start,
        )
        check(
            self.tokenizer.meaning != "pursuit"
            or self.run.start == "principal"
            or self.run.initial is not None,
            "run.start",
            'principal where tokenizer.meaning is "pursuit", which sees colours by it, unless run.initial has them',
            self.run.start,
        )

    def _check_language_model(self) -> None:
        wanted = "a Hugging Face folder" if self.tokenizer.language_model == "masked" else None
        check(
            bool(self.language_model) == (wanted is not None),
            "language_model",
            f"{wanted} where tokenizer.language_model is {self.tokenizer.language_model!r}",
            self.language_model,
        )
        check(
            self.loss.masked_lm == 0 or wanted is not None,
            "loss.masked_lm",
            "0 where tokenizer.language_model is 'none'",
            self.loss.masked_lm,
        )
