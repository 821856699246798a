"""What each choice of the first bundle was worth: one short run per variant, all else equal but for `one-table`.

Command   spae vocab build --components 16 -o build/vocabulary64-16
          spae vocab build --view raw -o build/vocabulary64-raw          (for one-table)
          spae vocab build --components 8 -o build/vocabulary64-8        (for components-8; likewise 32)
          for v in base rq zeros no-semantic no-trunk one-pool weak-commitment \\
                   components-8 components-32 one-table; do
              spae-train configs/ablations64.py --variant $v
              spae-train eval build/ablations64/$v/bundle 'DATA/novel-*.tar' --limit 400 --episodes 1000 \\
                  --skip codecs stlpips
          done
Data      Tiny ImageNet, base classes: tar shards below $SPAE_DATA (default ../shared/data).
Hardware  two CPU cores
Time      some two minutes each; one-table, whose search is 36 times as wide, longer
Expect    the table "Ablations" in docs/results.md
"""

import dataclasses
import os

import default64

from spae.architecture import AutoencoderConfig
from tokenizer_train.config import (
    Config,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    VocabularyConfig,
)


def config(name: str = "base", tokenizer: dict | None = None, loss: dict | None = None) -> Config:
    """The two-core variant of the default as it was when these rows were measured, cut to 150 steps, over the words of
    SmolLM2 alone, with some changes."""
    base = AutoencoderConfig(
        image_size=64,
        pyramid=(1, 2, 4, 8, 16, 16),
        filters=128,
        multipliers=(1,),
        blocks=2,
        downsamplings=0,
        patch=4,
        skip=True,
        meaning_layers=3,
        head_width=512,
        trunk="conse",
    )
    losses = LossConfig(
        adversarial=0.0,
        lecam=0.0,
        perceptual=0.0,
        hub_correction=True,
        deal_pools=True,
        temperature=0.1,
        thresholds=(0.98, 0.95, 0.9),
        semantic_layers=3,
        semantic_positions=4,
        prefix_dropout=0.2,
        adversarial_start=5_000,
    )
    return Config(
        vocabulary=VocabularyConfig(path="build/vocabulary64-16", words=16_384, widths=(16, 576)),
        tokenizer=dataclasses.replace(base, **(tokenizer or {})),
        data=DataConfig(
            train=os.path.join(default64.DATA, "base-train-*.tar"),
            validation=os.path.join(default64.DATA, "base-val-*.tar"),
            batch_size=16,
            threads=2,
            buffer=64,
            flip=False,
        ),
        loss=dataclasses.replace(losses, **(loss or {})),
        # So short a run needs a short memory of the weights.
        optimizer=OptimizerConfig(
            steps=150,
            learning_rate=2e-3,
            betas=(0.9, 0.99),
            warmup_steps=20,
            decay="cosine",
            clip_norm=1.0,
            ema=0.98,
        ),
        run=RunConfig(output=f"build/ablations64/{name}", evaluate_every=150, checkpoint_every=150),
        guidance="conse",
    )


def components(count: int) -> Config:
    """Another width of the appearance view; the base's is 16."""
    return dataclasses.replace(
        config(f"components-{count}"), vocabulary=VocabularyConfig(path=f"build/vocabulary64-{count}")
    )


def one_table() -> Config:
    """One raw table 576 wide for search, average and meaning, as in the paper; no head, no trunk.

    Its pools, thresholds and temperature are the paper's too; network, hub correction and prefix dropout are the
    base's.
    """
    paper = {"deal_pools": False, "semantic_layers": 5, "thresholds": (0.98, 0.95, 0.9, 0.85, 0.8)}
    return dataclasses.replace(
        config("one-table", {"meaning_layers": 0, "trunk": "none"}, {**paper, "temperature": 1.0}),
        vocabulary=VocabularyConfig(path="build/vocabulary64-raw"),
    )


def tiny() -> Config:
    """What the tests run."""
    return default64.tiny()


VARIANTS = {
    "base": config,
    "rq": lambda: config("rq", {"quantizer": "rq"}),
    "zeros": lambda: config("zeros", {"fill": "zeros"}),
    "no-semantic": lambda: config("no-semantic", loss={"semantic": 0.0}),
    "no-trunk": lambda: config("no-trunk", {"trunk": "none"}),
    "one-pool": lambda: config("one-pool", loss={"deal_pools": False}),
    "weak-commitment": lambda: config("weak-commitment", loss={"commitment": 0.05}),
    "components-8": lambda: components(8),
    "components-32": lambda: components(32),
    "one-table": one_table,
    "tiny": tiny,
}
