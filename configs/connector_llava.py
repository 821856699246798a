"""LLaVA's connector, stage 1: a token for each cell of the map, the language model as it is.

After LLaVA (arXiv 2304.08485) and LLaVA 1.5 (arXiv 2310.03744): CLIP ViT-L/14's last but one layer through a linear map
or a perceptron of two layers; batch 256, 1e-3, warm-up 3 %, cosine, one epoch (its repository's pretrain.sh). Label:
stage-1 only: there the language model is tuned next, and without that its benchmark score is a quarter.

Command   spae-train configs/connector_llava.py --trunk clip:CLIP_FOLDER --language-model LM_FOLDER \\
              --data.train CAPTIONS
          spae-train configs/connector_llava.py --variant linear             as the first LLaVA, at 2e-3, batch 128
          spae-train configs/connector_llava.py --variant cpu | linear-cpu   two CPU cores, SmolLM2-135M
          spae-icl run classify --model spae-connector/build/connector_mlp/bundle --data IMAGES
Data      pairs of an image and a caption, such as LLaVA's 558,128; cpu: as configs/connector_frozen.py
Hardware  as configs/connector_frozen.py, eight of them
Time      not run. By --dry-run with Vicuna-7B and CLIP at 336 px: 6.88 PFLOP a step, 6.77 of them in full float32, and
          54 GB a device; at 40 % of the peak 19 hours on eight H100, 153 device-hours. cpu: docs/connectors.md
Expect    docs/connectors.md
"""

import dataclasses

import connector_frozen

from tokenizer_train.connector.config import ConnectorExperiment


def config() -> ConnectorExperiment:
    """LLaVA 1.5's: two layers."""
    # CLIP at 336 px sees 24 x 24 cells.
    return connector_frozen.config("mlp")


def linear() -> ConnectorExperiment:
    """The first LLaVA's."""
    base = connector_frozen.config("linear", steps=4_360)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, batch_size=128),
        optimizer=dataclasses.replace(base.optimizer, learning_rate=2e-3),
    )


VARIANTS = {
    "linear": linear,
    "cpu": lambda: connector_frozen.cpu("mlp"),
    "linear-cpu": lambda: connector_frozen.cpu("linear"),
    "tiny": lambda: connector_frozen.tiny("mlp"),
    "linear-tiny": lambda: connector_frozen.tiny("linear"),
}
