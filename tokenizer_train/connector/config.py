"""What a run that trains a connector is made of; the sections that tokenizers have too are theirs."""

import dataclasses
from typing import Literal

from spae.bounds import Positive, check
from spae.connector_config import IMAGE, ConnectorConfig, parse_trunk
from tokenizer_train.config import FeedConfig, MeshConfig, OptimizerConfig, RecordConfig
from tokenizer_train.places import place


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig(FeedConfig):
    """Which images, and what is to be said of each."""

    # Path or glob that spae.sources.open_source understands.
    train: str = dataclasses.field(metadata=place(2))
    # Path or glob likewise, for the figures during training, never trained on; None: every tenth image of data.train,
    # 64 at most, is kept for that.
    validation: str | None = dataclasses.field(metadata=place(2))
    train_split: str | None = None  # of a TFDS directory: "train" if not given; None for anything else
    validation_split: str | None = None  # likewise
    # What is said: the first line of an image's caption, or the name of its class; images without are left out, and
    # counted. Or conversations: data.train and data.validation are files as LLaVA's.
    text: Literal["caption", "label", "conversation"] = "caption"
    # Folder from which on conversations name their images; None: that of their file.
    images: str | None = dataclasses.field(default=None, metadata=place(2))
    # What stands before a caption or a name, or in the place of a conversation's <image>; with <image> once, which
    # should not come first for a language model that has no token of its own in front of texts.
    prompt: str = IMAGE
    length: Positive = 64  # tokens of prompt and text together, the image left out; longer ones are an error

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.train), "data.train", "a path or glob of images", self.train)
        check(self.validation != "", "data.validation", "a path or glob of images, or None", self.validation)
        check(
            self.images is None or self.text == "conversation",
            "data.images",
            "None, but for data.text conversation",
            self.images,
        )
        if self.text == "conversation":
            splits = {"data.train_split": self.train_split, "data.validation_split": self.validation_split}
            for name, split in splits.items():
                check(split is None, name, "None with data.text conversation", split)
        check(self.prompt.count(IMAGE) == 1, "data.prompt", f"a text with {IMAGE} once", self.prompt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectorExperiment:
    """One experiment."""

    connector: ConnectorConfig
    data: PairsConfig
    run: RecordConfig
    # The frozen network that sees the images: "efficientnet", or "clip:PATH" with a file or folder of CLIP's weights.
    trunk: str = dataclasses.field(default="efficientnet", metadata=place(1))
    # The frozen language model: "default" (SmolLM2-135M of its package), a GGUF file or a Hugging Face folder, or
    # one of the hub, "hf:ORG/REPO[/FILE]".
    language_model: str = dataclasses.field(default="default", metadata=place(1))
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        parse_trunk(self.trunk)
