"""ViP-LLaVA's connector, stage 1: five layers of CLIP side by side, the language model as it is.

After ViP-LLaVA (arXiv 2312.00784): LayerNorm and a perceptron of two layers, by LLaVA's recipe. Label: stage-1 only, as
configs/connector_llava.py; marks on images are made and measured without it (`icl_runner/marks/`).

Command   spae-train configs/connector_vip.py --trunk clip:CLIP_FOLDER --language-model LM_FOLDER --data.train CAPTIONS
          spae-train configs/connector_vip.py --variant cpu      two CPU cores, SmolLM2-135M
          spae-icl run classify --model spae-connector/build/connector_multilayer/bundle --data IMAGES
Data      as configs/connector_llava.py
Hardware  as configs/connector_llava.py
Time      not run; as configs/connector_llava.py, --dry-run tells
Expect    docs/connectors.md
"""

import connector_frozen

from tokenizer_train.connector.config import ConnectorExperiment


def config() -> ConnectorExperiment:
    """At full size."""
    return connector_frozen.config("multilayer")


VARIANTS = {
    "cpu": lambda: connector_frozen.cpu("multilayer"),
    "tiny": lambda: connector_frozen.tiny("multilayer"),
}
