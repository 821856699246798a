"""The video SPAE: clips of 16 frames at 128 px, MAGVIT's 3-D CNN inflated from the image model.

Command   spae-train configs/imagenet128.py ..           the image model first; its header says how
          spae-train configs/video128.py --data.train kinetics600/train --data.validation kinetics600/validation \\
              --run.initial build/imagenet128/bundle --guidance clip:CLIP_FOLDER \\
              --loss.perceptual-weights resnet50.safetensors
Data      Kinetics-600: a folder for each class with the videos in it (.mp4, .webm, .avi, .mov, .mkv; needs the extra
          `video`), or with a folder of frames for each video.
Hardware  Meant for a pod: a clip costs sixteen images, and kernels three times as many products. By --dry-run 4.55
          PFLOP a step of 256 clips, and 9.4 GB of memory for each clip of a device's share beside 4.3 GB; with
          `--run.rematerialize` 5.38 PFLOP and 3.1 GB (304 and 105 GB on each of 8 devices, in float32, of which
          bfloat16 takes about half).
Time      By --dry-run at 40 % of the peak: 2,725 hours of an H100, divided by their number. Not run: it needs
          Kinetics-600, the image model, and the weights of CLIP and ResNet-50.
Expect    No figure: the paper's are not known to us. 175.9M parameters at width 1536 (reported: 176M). Only the `tiny`
          variant is exercised, by the tests.
"""

import dataclasses

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
    """16x128x128 to 4x16x16 latents as wide as the embedding table; 2,197 words a clip."""
    return Config(
        tokenizer=AutoencoderConfig(
            image_size=128,
            frames=16,
            pyramid=((1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (4, 16, 16)),
            filters=128,
            multipliers=(1, 2, 2, 4),
            blocks=2,
            downsamplings=3,
            temporal_downsamplings=2,
        ),
        vocabulary=VocabularyConfig(path="build/vocabulary128", words=65_536, widths=(1536, 1536)),
        # How fast the paper reads films, and how many at once, is not known to us: every frame, MAGVIT's batch.
        data=DataConfig(
            train="kinetics600/train",
            validation="kinetics600/validation",
            batch_size=256,
            threads=32,
            buffer=256,
        ),
        loss=LossConfig(perceptual_network="resnet50-logits", perceptual_weights="resnet50.safetensors"),
        optimizer=OptimizerConfig(steps=450_000, warmup_steps=5_000, decay="rsqrt", cooldown_steps=50_000),
        run=RunConfig(output="build/video128", initial="build/imagenet128/bundle", precision="bfloat16"),
        guidance="clip:clip-vit-large-patch14",
    )


def tiny() -> Config:
    """What the tests run: the same form, small, from fresh weights; without what users bring."""
    base = config()
    return dataclasses.replace(
        base,
        tokenizer=AutoencoderConfig(
            image_size=32,
            frames=4,
            pyramid=((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 4, 4)),
            filters=8,
            multipliers=(1, 1, 2),
            blocks=1,
            downsamplings=3,
            temporal_downsamplings=1,
        ),
        data=dataclasses.replace(base.data, batch_size=4, threads=1, buffer=8),
        loss=dataclasses.replace(base.loss, semantic=0.0, semantic_layers=4, perceptual_network="none"),
        optimizer=dataclasses.replace(base.optimizer, steps=20, warmup_steps=2, cooldown_steps=2),
        run=RunConfig(output="build/video128-tiny", log_every=5, evaluate_every=10, checkpoint_every=10),
    )


VARIANTS = {"tiny": tiny}
