"""V2L-like at 128 px: 21 global words by CLIP alone, 256 local words from a projected table, a decoder that sees both.

After V2L-Tokenizer (arXiv 2403.07874); docs/paper.md says what is as published and what is not.

Command   spae vocab build --from MODEL --embed clip:CLIP_FOLDER --view raw --max-size 32000 --min-zipf 0 \\
              --min-length 1 -o build/vocabulary128-v2l
          spae-train configs/v2l128.py --guidance clip:CLIP_FOLDER
          and --data.train, --data.validation, --loss.perceptual-weights as configs/imagenet128.py
Data      as configs/imagenet128.py: ImageNet
Hardware  as configs/imagenet128.py
Time      Not run: it needs ImageNet and the weights of CLIP and ResNet-50. By --dry-run at 32,000 words of width 768:
          164 TFLOP a step, 3.4 of them in full float32; at 40 % of the peak 67 hours of an H100 for 450,000 steps.
Expect    Reported by V2L-Tokenizer, unverified: FID 3.41, LPIPS 0.08, PSNR 23.56 with 256 local words. Only the
          tiny variant is exercised, by the tests.
"""

import dataclasses

import imagenet128

from tokenizer_train.config import Config, VocabularyConfig


def config(base: Config | None = None, name: str = "v2l128", above: tuple[int, ...] = (1, 2, 4)) -> Config:
    """Meaning layers that nothing trains; below them one layer of words from the projected table."""
    base = base or imagenet128.config()
    return dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(
            base.tokenizer,
            pyramid=(*above, base.tokenizer.pyramid[-1]),
            codebook="projected",
            meaning_layers=len(above),
            meaning="ranked",
            cross_attention=True,
            trunk="clip",
        ),
        vocabulary=VocabularyConfig(path="build/vocabulary128-v2l", words=32_000, widths=(768, 768)),
        loss=dataclasses.replace(base.loss, semantic=0.0, semantic_layers=0, codebook=1.0),
        run=dataclasses.replace(base.run, output=f"build/{name}"),
    )


def tiny() -> Config:
    """What the tests run."""
    return config(imagenet128.tiny(), "v2l128-tiny", above=(1, 2))


VARIANTS = {"tiny": tiny}
