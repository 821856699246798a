"""Frozen: two soft tokens of one pooled vector in front of a language model that nobody changes.

After Frozen (arXiv 2106.13884): the map alone is trained, its image encoder too was trained there. Label: native.

Command   spae-train configs/connector_frozen.py --trunk clip:CLIP_FOLDER --language-model LM_FOLDER \\
              --data.train CAPTIONS
          spae-train configs/connector_frozen.py --variant cpu      two CPU cores, SmolLM2-135M
          spae-icl run classify --model spae-connector/build/connector_frozen/bundle --data IMAGES
Data      pairs of an image and a caption, such as Conceptual Captions (Frozen's); cpu: names of Tiny ImageNet's base
          classes, below $SPAE_DATA (default ../shared/data)
Hardware  one GPU with 80 GB: the language model is whole on every device, in float32; cpu: two cores of a server
          processor, 2 GB
Time      not run; --dry-run tells. cpu: docs/connectors.md
Expect    docs/connectors.md
"""

import dataclasses
import os

from spae.connector_config import IMAGE, ConnectorConfig, Kind
from tokenizer_train.config import OptimizerConfig, RecordConfig
from tokenizer_train.connector.config import ConnectorExperiment, PairsConfig

DATA = os.path.join(os.environ.get("SPAE_DATA", os.path.join("..", "shared", "data")), "tiny-imagenet-64")


def config(kind: Kind = "frozen", steps: int = 2_180, length: int = 128) -> ConnectorExperiment:
    """At full size, by LLaVA's recipe of stage 1: batch 256, Adam at 1e-3, warm-up 3 %, cosine, one epoch of 558,128
    pairs (its repository's pretrain.sh)."""
    return ConnectorExperiment(
        connector=ConnectorConfig(kind=kind),
        trunk="clip:CLIP_FOLDER",
        language_model="LM_FOLDER",
        data=PairsConfig(
            train="captions/*.tar", validation=None, batch_size=256, threads=12, buffer=1024, length=length
        ),
        optimizer=OptimizerConfig(
            steps=steps,
            learning_rate=1e-3,
            betas=(0.9, 0.999),
            warmup_steps=round(0.03 * steps),
            decay="cosine",
            ema=0.0,  # the last weights, as LLaVA's
        ),
        run=RecordConfig(
            output=f"build/connector_{kind}", evaluate_every=500, checkpoint_every=500, rematerialize=True
        ),
    )


def cpu(kind: Kind = "frozen") -> ConnectorExperiment:
    """Minutes on two CPU cores: names of classes, the packaged EfficientNet, SmolLM2-135M; of maps, 2 x 2 tokens.

    SmolLM2 has no token of its own in front of a text, and what stands first draws attention whatever it says (the
    sink, arXiv 2309.17453). That is to be a word: a map that all tokens of an image share learns much more slowly
    when one of them stands there (docs/connectors.md)."""
    base = config(kind)
    return dataclasses.replace(
        base,
        connector=ConnectorConfig(kind=kind, grid=None if kind == "frozen" else 2),
        trunk="efficientnet",
        language_model="default",
        data=PairsConfig(
            train=os.path.join(DATA, "base-train-*.tar"),
            validation=os.path.join(DATA, "base-val-*.tar"),
            text="label",
            prompt=f"Image: {IMAGE}",
            batch_size=16,
            threads=1,
            buffer=64,
            length=9,
        ),
        optimizer=dataclasses.replace(
            base.optimizer,
            steps=500,
            learning_rate=2e-3 if kind in ("frozen", "linear") else 1e-3,  # of perceptrons LLaVA's
            warmup_steps=15,
            ema=0.9,
        ),
        run=RecordConfig(
            output=f"build/connector_{kind}-cpu", log_every=20, evaluate_every=100, checkpoint_every=50
        ),
    )


def tiny(kind: Kind = "frozen") -> ConnectorExperiment:
    """What the tests run, with networks of their own."""
    base = cpu(kind)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, text="caption", prompt=IMAGE, batch_size=4, buffer=8),
        optimizer=dataclasses.replace(base.optimizer, steps=20, learning_rate=3e-2, warmup_steps=2, ema=0.0),
        run=RecordConfig(
            output=f"build/connector_{kind}-tiny", log_every=5, evaluate_every=10, checkpoint_every=10
        ),
    )


VARIANTS = {"cpu": cpu, "tiny": tiny}
