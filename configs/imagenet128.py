"""The paper's form: ImageNet at 128 px, one raw embedding table, no trunk, CLIP ViT-L/14 guidance.

Command   spae vocab build --from MODEL --view raw --max-size 65536 --min-zipf 0 --min-length 1 \\
              -o build/vocabulary128
          spae-train configs/imagenet128.py --guidance clip:CLIP_FOLDER --loss.perceptual-weights resnet50.safetensors
              with --mesh.coordinator auto on every host of a TPU pod slice, or by srun on machines with GPUs; and
              --variant spae8, rq, no-pyramid, no-semantic for the other rows of the paper's tables
          spae-train configs/imagenet128.py --dry-run --device h100 --devices 8
          docs/operations.md, "Training", has the rest, step by step.
Data      ImageNet-1k, prepared once by tensorflow-datasets as array_record (no TensorFlow needed to read it):
              tfds.builder("imagenet2012").download_and_prepare(file_format="array_record"), then
              --data.train and --data.validation ~/tensorflow_datasets/imagenet2012/5.1.0
          Or tar shards or folders: --data.train 'imagenet/train/*.tar' --data.validation 'imagenet/val/*.tar'
              --data.validation-split None
Hardware  The paper's batch of 256 is split over all devices of all hosts. By --dry-run at width 1536 and 65,536 words:
          encoder 23.7M, decoder 35.7M, discriminator 23.9M parameters; 246 TFLOP a step, 83.8 of them in full float32;
          state, codebook and frozen networks 1.9 GB a device, plus 24 GB for 32 images a device as XLA plans for CPUs.
Time      Not run. By --dry-run at 40 % of the peak: 442 hours of an H100, 756 of a TPU v4, 1,056 of a TPU v5e for the
          paper's 450,000 steps, divided by their number. It needs ImageNet and the weights of CLIP and ResNet-50.
Expect    Reported by the paper, unverified: FID 9.49 with 5 layers, 4.41 with 6; LPIPS 0.17 and 0.12. Only
          the tiny variants are exercised, by the tests.
"""

import dataclasses
from typing import Any

from spae.architecture import AutoencoderConfig
from tokenizer_train.config import (
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    VocabularyConfig,
)


def config() -> Config:
    """SPAE-6: 16x16 latents as wide as the embedding table, 59M parameters at width 1536."""
    return Config(
        tokenizer=AutoencoderConfig(
            image_size=128,
            pyramid=(1, 2, 4, 8, 16, 16),
            filters=128,
            multipliers=(1, 2, 2, 4),
            blocks=2,
            downsamplings=3,
            meaning_layers=0,
            trunk="none",
        ),
        vocabulary=VocabularyConfig(path="build/vocabulary128", words=65_536, widths=(1536, 1536)),
        # Written by tensorflow-datasets as array_record; tar shards ('imagenet/train/*.tar') and folders do as well.
        data=DataConfig(
            train="imagenet2012/5.1.0",
            validation="imagenet2012/5.1.0",
            validation_split="validation",
            threads=16,
            buffer=2048,
        ),
        # The paper trains with its own constants, which are the defaults; its perceptual loss is MAGVIT's.
        loss=LossConfig(perceptual_network="resnet50-logits", perceptual_weights="resnet50.safetensors"),
        optimizer=OptimizerConfig(steps=450_000, warmup_steps=5_000, decay="rsqrt", cooldown_steps=50_000),
        run=RunConfig(output="build/imagenet128", precision="bfloat16"),
        guidance="clip:clip-vit-large-patch14",
    )


def spae8() -> Config:
    """SPAE-8: two more 16x16 layers, 1,109 words."""
    base = config()
    pyramid = (*base.tokenizer.pyramid, 16, 16)
    return _variant("spae8", base, dataclasses.replace(base.tokenizer, pyramid=pyramid))


def rq() -> Config:
    """Residual quantization instead of streaming average quantization."""
    base = config()
    return _variant("rq", base, dataclasses.replace(base.tokenizer, quantizer="rq"))


def no_pyramid() -> Config:
    """One 16x16 layer, the fifth of the paper's by its size, and so with its pool: 256 words."""
    base = config()
    tokenizer = dataclasses.replace(base.tokenizer, pyramid=(16,))
    return _variant("no-pyramid", base, tokenizer, semantic_layers=1, thresholds=(0.8,))


def no_semantic() -> Config:
    """Appearance alone chooses the words."""
    base = config()
    return _variant("no-semantic", base, base.tokenizer, semantic=0.0)


def _variant(name: str, base: Config, tokenizer: AutoencoderConfig, **losses: Any) -> Config:
    return dataclasses.replace(
        base,
        tokenizer=tokenizer,
        loss=dataclasses.replace(base.loss, **losses),
        run=dataclasses.replace(base.run, output=f"build/imagenet128-{name}"),
    )


def tiny() -> Config:
    """What the tests run: the same form, small; without the guidance and perceptual weights users bring."""
    base = config()
    return dataclasses.replace(
        base,
        tokenizer=AutoencoderConfig(
            image_size=32, pyramid=(1, 2, 4, 4), filters=8, multipliers=(1, 1, 2), blocks=1, downsamplings=3
        ),
        vocabulary=VocabularyConfig(path="build/vocabulary128"),
        data=dataclasses.replace(base.data, validation_split=None, batch_size=8, threads=1, buffer=16),
        loss=dataclasses.replace(base.loss, semantic=0.0, semantic_layers=4, perceptual_network="none"),
        optimizer=dataclasses.replace(base.optimizer, steps=20, warmup_steps=2, cooldown_steps=2),
        run=RunConfig(output="build/imagenet128-tiny", log_every=5, evaluate_every=10, checkpoint_every=10),
    )


def _tiny(name: str, **tokenizer: Any) -> Config:
    base = tiny()
    layers = len(tokenizer.get("pyramid", base.tokenizer.pyramid))
    return dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(base.tokenizer, **tokenizer),
        loss=dataclasses.replace(base.loss, semantic_layers=min(4, layers)),
        run=dataclasses.replace(base.run, output=f"build/imagenet128-{name}-tiny"),
    )


VARIANTS = {
    "spae8": spae8,
    "rq": rq,
    "no-pyramid": no_pyramid,
    "no-semantic": no_semantic,  # small, it is "tiny"
    "tiny": tiny,
    "spae8-tiny": lambda: _tiny("spae8", pyramid=(1, 2, 4, 4, 4, 4)),
    "rq-tiny": lambda: _tiny("rq", quantizer="rq"),
    "no-pyramid-tiny": lambda: _tiny("no-pyramid", pyramid=(4,)),
}
