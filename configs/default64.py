"""The embedded default: 64-px photographs; words of meaning by regional pursuit, and a learned map of SmolLM2's table.

Command   spae vocab build --components 128 --also QWEN2_5 cl100k_base o200k_base -o build/vocabulary64
          spae-train configs/default64.py                     one GPU
          spae-train configs/default64.py --variant cpu       two CPU cores; then with another map of words,
          spae-train configs/default64.py --variant map       and then, for the decoder alone,
          spae-train configs/default64.py --variant finish
          spae-train configs/default64.py --variant linear    nothing trained: the floor
          spae-train eval build/default64/bundle DATA
          QWEN2_5: a GGUF file of Qwen2.5, of any size, or its tokenizer.json; --also as a whole may be left out
          (16,384 words then, which are single tokens of SmolLM2 alone)
Data      Tiny ImageNet, base classes: tar shards below $SPAE_DATA (default ../shared/data).
Hardware  one GPU with 24 GB or more (not run yet); variants: two cores of a server processor
Time      not known yet for a GPU; cpu: half a second a step with nothing beside it; before it a quarter of an hour
Expect    docs/results.md
"""

import dataclasses
import os

from spae.architecture import AutoencoderConfig
from tokenizer_train.config import (
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    VocabularyConfig,
)

DATA = os.path.join(os.environ.get("SPAE_DATA", os.path.join("..", "shared", "data")), "tiny-imagenet-64")


def config() -> Config:
    """For one GPU."""
    return Config(
        tokenizer=AutoencoderConfig(
            image_size=64,
            pyramid=(1, 2, 4, 8, 16, 16),
            filters=96,
            multipliers=(1, 2, 4),
            blocks=2,
            downsamplings=2,
            skip=True,
            codebook="mapped",
            latents=24,
            map_width=512,
            fill="zeros",
            meaning_layers=3,
            meaning="pursuit",
            pools=(1, 1, 64),
            meaning_words="apart",
            trunk="conse",
        ),
        vocabulary=VocabularyConfig(path="build/vocabulary64", words=14_293, widths=(128, 576)),
        data=DataConfig(
            train=os.path.join(DATA, "base-train-*.tar"),
            validation=os.path.join(DATA, "base-val-*.tar"),
            batch_size=128,
            threads=12,
            buffer=1024,
        ),
        # Meaning words are given, so nothing is left for the semantic loss.
        loss=LossConfig(
            semantic=0.0, semantic_layers=0, commitment=0.1, prefix_dropout=0.2, adversarial_start=5_000
        ),
        optimizer=OptimizerConfig(
            steps=40_000,
            learning_rate=1e-3,
            betas=(0.9, 0.99),
            warmup_steps=500,
            decay="cosine",
            clip_norm=1.0,
        ),
        run=RunConfig(output="build/default64", start="principal", precision="bfloat16"),
        guidance="conse",
    )


def cpu() -> Config:
    """Hours on two CPU cores: a light network over 4x4 patches, squared error alone."""
    base = config()
    return dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(
            base.tokenizer,
            filters=128,
            multipliers=(1,),
            downsamplings=0,
            patch=4,
            block="depthwise",
            blocks=3,
            map_width=0,  # added by `map`, after it
        ),
        # A small batch: within hours the number of steps counts for more than the noise of each.
        data=dataclasses.replace(base.data, batch_size=16, threads=2, buffer=64, flip=False),
        loss=dataclasses.replace(base.loss, adversarial=0.0, lecam=0.0, perceptual=0.0),
        optimizer=dataclasses.replace(base.optimizer, steps=16_000, learning_rate=2e-3, warmup_steps=100),
        run=RunConfig(
            output="build/default64-cpu", start="principal", evaluate_every=1_000, checkpoint_every=250
        ),
    )


def map_() -> Config:
    """After `cpu`: the same with a perceptron beside the linear map of words, whose output begins at nothing."""
    base = cpu()
    return dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(base.tokenizer, map_width=512),
        # The words of meaning of all photographs are there already.
        data=dataclasses.replace(base.data, cache="build/default64-cpu/guidance"),
        optimizer=dataclasses.replace(base.optimizer, steps=8_000),
        run=dataclasses.replace(base.run, output="build/default64-map", initial="build/default64-cpu/bundle"),
    )


def finish() -> Config:
    """After `map`: its decoder alone, with a perceptual loss; the words stay."""
    base = map_()
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, batch_size=8),
        loss=dataclasses.replace(base.loss, perceptual=0.1, prefix_dropout=0.3),
        optimizer=dataclasses.replace(base.optimizer, steps=1_000, learning_rate=5e-4, warmup_steps=30),
        run=RunConfig(
            output="build/default64-finish",
            initial="build/default64-map/bundle",
            trains="decoder",
            evaluate_every=250,
            checkpoint_every=250,
        ),
    )


def linear() -> Config:
    """The floor: nothing is trained. Two words at every place, by the linear start alone."""
    base = cpu()
    return dataclasses.replace(
        base,
        tokenizer=AutoencoderConfig(
            image_size=64,
            pyramid=(16, 16),
            network="linear",
            downsamplings=0,
            patch=4,
            skip=True,
            codebook="mapped",
            latents=12,
        ),
        optimizer=dataclasses.replace(base.optimizer, steps=0, warmup_steps=0),
        run=RunConfig(output="build/default64-linear", start="principal"),
    )


def tiny() -> Config:
    """What the tests run: every part once, nothing learned; a head in the place of pursuit, which needs a trunk."""
    base = config()
    return dataclasses.replace(
        base,
        tokenizer=AutoencoderConfig(
            image_size=32,
            pyramid=(1, 2, 4, 4),
            filters=8,
            multipliers=(1, 2),
            blocks=1,
            downsamplings=2,
            patch=2,
            block="depthwise",
            skip=True,
            codebook="mapped",
            latents=4,
            map_width=8,
            meaning_layers=2,
            head_width=16,
            trunk="none",
        ),
        data=dataclasses.replace(base.data, batch_size=8, threads=1, buffer=16),
        loss=dataclasses.replace(
            base.loss,
            semantic=1.0,
            hub_correction=True,
            deal_pools=True,
            temperature=0.1,
            thresholds=(0.9, 0.8),
            semantic_layers=2,
            perceptual_network="none",
            adversarial_start=0,
        ),
        optimizer=dataclasses.replace(base.optimizer, steps=20, warmup_steps=2),
        run=RunConfig(
            output="build/default64-tiny",
            start="principal",
            log_every=5,
            evaluate_every=10,
            checkpoint_every=10,
        ),
    )


VARIANTS = {"cpu": cpu, "map": map_, "finish": finish, "linear": linear, "tiny": tiny}
