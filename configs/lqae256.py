"""LQAE: images as sentences of a frozen RoBERTa, from ViT to ViT through its states (arXiv 2302.00902).

Command   spae vocab build --from ROBERTA_BASE --view raw --max-size 65536 --min-zipf 0 --min-length 1 \\
              -o build/vocabulary-roberta
          spae-train configs/lqae256.py --language-model ROBERTA_BASE --data.train 'imagenet/train/*.tar'
Data      ImageNet-1k; ROBERTA_BASE: the Hugging Face folder of RoBERTa-base (config.json, tokenizer.json,
          model.safetensors).
Hardware  Meant for one host with several accelerators; LQAE's batch of 512 is split over them.
Time      Not run: it needs ImageNet and RoBERTa. 100 epochs are 250,200 steps of 512; by --dry-run 223 TFLOP a step,
          64 hours of an H100 at 40 % of the peak, divided by their number.
Expect    No figure is published for reconstruction. Only the `tiny` variant is exercised, by the tests.
Differs   docs/paper.md, "Baselines": plain ViT blocks, whole words only, no random crops.
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

BATCH = 512
EPOCH = 1_281_167 // BATCH  # steps


def config() -> Config:
    """ViT-B/16 on both sides, 256 px -> 256 words, as LQAE's published command has it."""
    return Config(
        tokenizer=AutoencoderConfig(
            image_size=256,
            pyramid=(16,),
            network="vit",
            filters=768,
            blocks=12,
            heads=12,
            multipliers=(1,),
            downsamplings=0,
            patch=16,
            unit=True,
            language_model="masked",
        ),
        vocabulary=VocabularyConfig(path="build/vocabulary-roberta", words=50_265, widths=(768, 768)),
        data=DataConfig(
            train="imagenet/train/*.tar",
            validation="imagenet/validation/*.tar",
            batch_size=BATCH,
            threads=16,
            buffer=2048,
        ),
        loss=LossConfig(
            reconstruction=1.0,
            commitment=0.01,  # 0.005 in the command, which the code adds twice
            masked_lm=1e-4,
            masking=0.5,
            adversarial=0.0,
            lecam=0.0,
            perceptual=0.0,
            semantic=0.0,
            semantic_layers=0,
        ),
        optimizer=OptimizerConfig(
            steps=100 * EPOCH,
            learning_rate=1.5e-4 * BATCH / 256,
            betas=(0.9, 0.95),
            weight_decay=5e-4,
            warmup_steps=5 * EPOCH,
            decay="cosine",
            ema=0.0,
        ),
        run=RunConfig(output="build/lqae256", precision="bfloat16"),
        language_model="roberta-base",
    )


def tiny() -> Config:
    """What the tests run: the same parts, small, with a tiny RoBERTa of random weights."""
    base = config()
    return dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(
            base.tokenizer, image_size=32, pyramid=(4,), filters=16, blocks=1, heads=2, patch=8
        ),
        data=dataclasses.replace(base.data, batch_size=8, threads=1, buffer=16),
        optimizer=dataclasses.replace(base.optimizer, steps=20, warmup_steps=2),
        run=RunConfig(output="build/lqae256-tiny", log_every=5, evaluate_every=10, checkpoint_every=10),
    )


VARIANTS = {"tiny": tiny}
