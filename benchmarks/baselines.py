"""All baselines for one short budget, measured alike: `python -m benchmarks.baselines --output FOLDER`.

Trains each variant of configs/baselines64.py in a process of its own, measures its bundle with every metric that the
weights at hand allow (`spae-train eval`), and writes baselines.json and baselines.md. What is there already is not
done again, so a run that was stopped goes on.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.run import machine
from spae.compiled import keep_compiled
from spae.errors import BundleError, InputError
from spae.files import write_file
from tokenizer_train.config_file import load_config, variants
from tokenizer_train.evaluation.evaluate import Options, measured
from tokenizer_train.evaluation.tables import comparison

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "baselines64.py"
VARIANTS = tuple(name for name in variants(CONFIG) if name != "tiny")
FEW_SHOT = (5, 5)  # ways and shots of the column


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, write, print; returns the exit status."""
    options = _parser().parse_args(arguments)
    keep_compiled()
    results = []
    try:
        for variant in options.variants:
            results.append(baseline(variant, options))
            document = {"machine": machine(), "config": CONFIG.name, "results": results}
            write_file(options.output / "baselines.json", (json.dumps(document, indent=1) + "\n").encode())
            write_file(options.output / "baselines.md", (table(results) + "\n").encode())
    except (BundleError, InputError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(table(results))
    return 0


def baseline(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """One baseline's figures, from disk or by training and measuring it.

    Raises:
        InputError: the training failed; its own message went to stderr.
    """
    folder = options.output / variant
    config = load_config(CONFIG, variant)
    steps = options.steps or config.optimizer.steps
    if not _is_trained(folder, steps):
        print(f"training {variant} ..", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "tokenizer_train.cli", str(CONFIG), "--variant", variant]
        command += ["--run.output", str(folder), "--optimizer.steps", str(steps)]
        command += ["--optimizer.warmup-steps", str(min(config.optimizer.warmup_steps, steps))]
        command += ["--data.cache", str(options.output / "guidance")]
        if subprocess.run(command).returncode != 0:
            raise InputError(f"training {variant} failed: see above, mend it and run the same command again")

    asked = Options(
        bundle=str(folder / "bundle"),
        data=options.data or config.data.validation,
        limit=options.limit,
        codec_images=1,
        lpips=options.lpips,
        inception=options.inception,
        clip=options.clip,
        skip=("codecs",),
    )
    kept = folder / "figures.json"
    sums = json.loads((folder / "bundle" / "bundle.json").read_bytes())
    # As JSON gives it back: tuples become lists there.
    key = json.loads(json.dumps({"asked": dataclasses.asdict(asked), "bundle": sums["sha256"]}))
    if kept.is_file() and (found := json.loads(kept.read_bytes())).get("key") == key:
        return found["figures"]
    print(f"measuring {variant} ..", file=sys.stderr, flush=True)
    training = {"steps": steps, "seconds": sums["training"]["seconds"]}
    figures = measured(asked.bundle, asked) | {"bundle": variant, "training": training}
    write_file(kept, (json.dumps({"key": key, "figures": figures}, indent=1) + "\n").encode())
    return figures


def table(results: Sequence[dict[str, Any]]) -> str:
    """The comparison of `spae-train eval`, with the few-shot check on the upper words and the time of training."""
    ways, shots = FEW_SHOT
    columns = [[f"{ways}-way {shots}-shot, 5 / 21 words", "training s"], ["---", "---"]]
    for result in results:
        accuracy: dict[str, float] = {}
        for setting in result.get("few_shot", []):
            if (setting["ways"], setting["shots"]) == FEW_SHOT:
                accuracy = setting["accuracy"]
        shown = [f"{accuracy[name]:.3f}" if name in accuracy else "–" for name in ("5 words", "21 words")]
        columns.append([" / ".join(shown), f"{result['training']['seconds']:,}"])
    lines = comparison(results).splitlines()
    return "\n".join(f"{line} {' | '.join(more)} |" for line, more in zip(lines, columns, strict=True))


def _is_trained(folder: Path, steps: int) -> bool:
    file = folder / "bundle" / "bundle.json"
    if not file.is_file():
        return False
    return json.loads(file.read_bytes())["training"]["config"]["optimizer"]["steps"] == steps


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baselines",
        description="Train all baselines for one short budget and measure them alike.",
        epilog="example: python -m benchmarks.baselines --output build/baselines64 --limit 2000",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("build/baselines64"), metavar="DIR", help="(build/baselines64)"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="these only (all)")
    parser.add_argument("--steps", type=int, metavar="N", help="another budget than the config's (200)")
    parser.add_argument(
        "--data", metavar="PATH", help="images to measure on (the config's validation images)"
    )
    parser.add_argument("--limit", type=int, default=2_000, metavar="N", help="of them, at most (2000)")
    parser.add_argument("--lpips", metavar="DIR", help="weights of LPIPS, as for spae-train eval")
    parser.add_argument("--inception", metavar="FILE", help="weights of FID's network, likewise")
    parser.add_argument("--clip", metavar="PATH", help="weights of CLIP, likewise")
    return parser


if __name__ == "__main__":
    sys.exit(main())
