"""VQGAN at 128 px: one 16x16 layer, a learned codebook; or the same with a language model's frozen one.

Two rows of the paper's table of reconstruction, on SPAE's networks, losses and data.

Command   spae-train configs/vqgan128.py                    8,192 learned codes; needs no vocabulary
          spae-train configs/vqgan128.py --variant frozen   the vocabulary of configs/imagenet128.py
          and --data.train, --data.validation, --loss.perceptual-weights as there
Data      as configs/imagenet128.py: ImageNet
Hardware  as configs/imagenet128.py
Time      Not run: it needs ImageNet and the weights of ResNet-50. By --dry-run (learned) 160 TFLOP a step, and at 40 %
          of the peak 52 hours of an H100 for 450,000 steps.
Expect    Reported by the paper, unverified: FID 5.48 and LPIPS 0.13 (learned), 7.44 and 0.17 (frozen codebook of
          PaLM 2), 256 tokens. Only the tiny variants are exercised, by the tests.
"""

import dataclasses

import imagenet128

from tokenizer_train.config import Config, VocabularyConfig


def config(base: Config | None = None, name: str = "vqgan128") -> Config:
    """A learned codebook under the paper's networks: what has a meaning is left out."""
    base = base or imagenet128.config()
    return dataclasses.replace(
        base,
        # One layer: both quantizers are plain vector quantization then.
        tokenizer=dataclasses.replace(
            base.tokenizer, pyramid=base.tokenizer.pyramid[-1:], codebook="learned"
        ),
        vocabulary=VocabularyConfig(codes=8_192, width=256),
        loss=dataclasses.replace(base.loss, semantic=0.0, semantic_layers=0, codebook=1.0),
        run=dataclasses.replace(base.run, output=f"build/{name}"),
    )


def frozen(base: Config | None = None, name: str = "vqgan128-frozen") -> Config:
    """The codebook is the language model's table, as it is."""
    base = base or imagenet128.config()
    learned = config(base, name)
    return dataclasses.replace(
        learned,
        tokenizer=dataclasses.replace(learned.tokenizer, codebook="frozen"),
        vocabulary=base.vocabulary,
    )


def tiny() -> Config:
    """What the tests run."""
    learned = config(imagenet128.tiny(), "vqgan128-tiny")
    return dataclasses.replace(learned, vocabulary=VocabularyConfig(codes=64, width=8))


VARIANTS = {
    "frozen": frozen,
    "tiny": tiny,
    "frozen-tiny": lambda: frozen(imagenet128.tiny(), "vqgan128-frozen-tiny"),
}
