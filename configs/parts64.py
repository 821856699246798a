"""What each part is worth: words chosen without training, and one short run for each part of the rest. The shipped
bundle was trained with what `default` has, and then with the perceptron of `map-512`.

Command   spae vocab build .. as configs/default64.py says; with --components 64, too, into build/vocabulary64-64
          spae-train configs/parts64.py --variant VARIANT
          spae-train eval build/parts64/VARIANT/bundle 'DATA/base-val-*.tar' --limit 1000 --skip codecs stlpips frechet
Variants  of the words, nothing trained: words-1-1-1, words-1-1-16, words-1-1-64, words-1-1-128, words-1-4-64 (pools)
          of the rest, 500 steps: base, fixed-map, residual, latents-24, inputs-64, unit, zeros, zeros-24, zeros-32,
          default, map-512
Data      Tiny ImageNet, base classes: tar shards below $SPAE_DATA (default ../shared/data).
Hardware  two CPU cores
Time      some five minutes each; of the words two
Expect    docs/results.md
"""

import dataclasses
from functools import partial

import default64

from tokenizer_train.config import Config


def config(
    name: str = "base", tokenizer: dict | None = None, loss: dict | None = None, inputs: int = 128
) -> Config:
    """The two-core variant of the default as it was when these rows were run, cut to 500 steps, with some changes."""
    base = default64.cpu()
    folder = "build/vocabulary64" if inputs == 128 else f"build/vocabulary64-{inputs}"
    before = {"latents": 16, "fill": "nearest"}
    return dataclasses.replace(
        base,
        tokenizer=dataclasses.replace(base.tokenizer, **{**before, **(tokenizer or {})}),
        vocabulary=dataclasses.replace(base.vocabulary, path=folder, widths=(inputs, 576)),
        # One shard of eight, whose words take two minutes.
        data=dataclasses.replace(
            base.data, train=base.data.train.replace("*", "00000-*"), cache="build/parts64/guidance"
        ),
        loss=dataclasses.replace(base.loss, **{"commitment": 0.33, **(loss or {})}),
        optimizer=dataclasses.replace(base.optimizer, steps=500),
        run=dataclasses.replace(
            base.run, output=f"build/parts64/{name}", evaluate_every=500, checkpoint_every=500
        ),
    )


def words(*pools: int) -> Config:
    """Nothing trained: the words of meaning are what they are before the first step."""
    name = "words-" + "-".join(map(str, pools))
    base = config(name, {"pools": pools, "network": "linear"})
    return dataclasses.replace(base, optimizer=dataclasses.replace(base.optimizer, steps=0, warmup_steps=0))


def tiny() -> Config:
    """What the tests run."""
    return default64.tiny()


DEFAULT = {"fill": "zeros", "latents": 24}
POOLS = ((1, 1, 1), (1, 1, 16), (1, 1, 64), (1, 1, 128), (1, 4, 64))
VARIANTS = {
    **{"words-" + "-".join(map(str, pools)): partial(words, *pools) for pools in POOLS},
    "base": config,
    "fixed-map": lambda: config("fixed-map", loss={"codebook": 0.0}),
    "residual": lambda: config("residual", {"block": "residual", "blocks": 2}),
    "latents-24": lambda: config("latents-24", {"latents": 24}),
    "inputs-64": lambda: config("inputs-64", inputs=64),
    "zeros": lambda: config("zeros", {"fill": "zeros"}),
    "zeros-24": lambda: config("zeros-24", {"fill": "zeros", "latents": 24}),
    "zeros-32": lambda: config("zeros-32", {"fill": "zeros", "latents": 32}),
    "default": lambda: config("default", DEFAULT, {"commitment": 0.1}),
    "map-512": lambda: config("map-512", {**DEFAULT, "map_width": 512}, {"commitment": 0.1}),
    "unit": lambda: config("unit", {"unit": True}),
    "tiny": tiny,
}
