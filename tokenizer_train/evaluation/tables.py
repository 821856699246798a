"""The figures of `spae-train eval` as Markdown tables, for people and for docs/results.md."""

from collections.abc import Sequence
from typing import Any

# In this order, those that were measured.
MEASURES = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "stlpips": "STLPIPS",
    "lpips_alex": "LPIPS alex",
    "lpips_vgg": "LPIPS vgg",
    "fid": "FID",
    "frechet_lite0": "Frechet Lite0",
    "inception_score": "IS",
    "percentile": "percentile",
    "percentile_corrected": "hub-corrected",
    "conse_score": "ConSE score",
    "conse_relative": "relative",
    "clip_score": "CLIP score",
    "clip_relative": "relative",
    "clip-jax_score": "CLIP score (clip-jax)",
    "clip-jax_relative": "relative",
}
NAMES = MEASURES | {
    "lpips": "LPIPS",
    "inception_score": "Inception Score",
    "percentile": "percentiles",
    "few_shot": "few-shot check",
    "naming": "naming",
    "mosaics": "mosaics",
    "codecs": "JPEG and WebP",
}


def markdown(result: dict[str, Any]) -> str:
    """Tables of reconstruction, of the use of words, of the few-shot check and of naming; and what was not measured."""
    blocks = [
        f"{result['bundle']} on {result['images']:,} {'images' if result['frames'] == 1 else 'clips'} of "
        f"{result['data']}, "
        f"{result['vocabulary']:,} words; means over images.",
        _prefixes(result["prefixes"]),
        _layers(result["layers"]),
    ]
    if originals := result["originals"]:
        blocks.append(f"Inception Score of the images themselves: {originals['inception_score']:.2f}.")
    if "few_shot" in result:
        blocks.append(_few_shot(result["few_shot"]))
    if "naming" in result:
        blocks.append(_shares(f"named, of {result['naming']['names']:,}", result["naming"]))
    if "mosaics" in result:
        blocks.append(
            _shares(f"quadrants named, of {result['mosaics']['mosaics']:,} mosaics", result["mosaics"])
        )
    if not_measured := result["not_measured"]:
        blocks.append(
            "Not measured: " + "; ".join(f"{NAMES[key]} ({why})" for key, why in not_measured.items()) + "."
        )
    return "\n\n".join(blocks)


def comparison(results: Sequence[dict[str, Any]]) -> str:
    """One row for each bundle: all its layers together. A dash stands for what was not measured.

    Bundles of different image sizes were given the same images at those sizes; their figures do not compare.
    """
    last = [result["prefixes"][-1] for result in results]
    measures = [key for key in MEASURES if any(key in prefix for prefix in last)]
    titles = ["bundle", "side", "words", "bits", *(MEASURES[key] for key in measures), "used", "perplexity"]
    rows = []
    for result, prefix in zip(results, last, strict=True):
        row = [str(result["bundle"]), str(result["image_size"])]
        row += [_number(key, prefix[key]) if key in prefix else "–" for key in ("words", "bits", *measures)]
        used = result["all_layers"]
        rows.append([*row, f"{used['usage']:.1%}", _number("perplexity", used["perplexity"])])
    return _table(titles, rows)


def _prefixes(prefixes: Sequence[dict[str, Any]]) -> str:
    columns = {"layers": "layers", "words": "words", "bits": "bits"} | MEASURES
    columns = {key: title for key, title in columns.items() if key in prefixes[0]}
    rows = [[_number(key, prefix[key]) for key in columns] for prefix in prefixes]
    titles = list(columns.values())
    for format, title in (("webp", "WebP"), ("jpeg", "JPEG")):
        if format in prefixes[0]:
            titles.append(f"{title} PSNR / SSIM / STLPIPS (fits)")
            for row, prefix in zip(rows, prefixes, strict=True):
                row.append(_codec(prefix[format]))
    return _table(titles, rows)


def _codec(coded: dict[str, Any]) -> str:
    measured = [_number(key, coded[key]) for key in ("psnr", "ssim", "stlpips") if coded.get(key) is not None]
    return f"{' / '.join(measured) or 'none so small'} ({coded['fits']:.0%})"


def _layers(layers: Sequence[dict[str, Any]]) -> str:
    keys = ["layer", "words_per_image", "distinct", "usage", "perplexity", *MEASURES]
    keys = [key for key in keys if key in layers[0]]
    return _table(
        [key.replace("_", " ") for key in keys], [[_number(key, x[key]) for key in keys] for x in layers]
    )


def _few_shot(settings: Sequence[dict[str, Any]]) -> str:
    titles = ["represented by", *(f"{s['ways']}-way {s['shots']}-shot" for s in settings)]
    rows = [["chance", *(f"{s['chance']:.3f}" for s in settings)]]
    for name in settings[0]["accuracy"]:
        rows.append([name, *(f"{s['accuracy'][name]:.3f} ± {s['interval'][name]:.3f}" for s in settings)])
    return _table(titles, rows)


def _shares(title: str, result: dict[str, Any]) -> str:
    rows = [["chance", f"{result['chance']:.3f}"]]
    for name, share in result["accuracy"].items():
        rows.append([name, f"{share:.3f} ± {result['interval'][name]:.3f}"])
    return _table(["represented by", title], rows)


def _number(key: str, value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    digits = {"psnr": 2, "bits": 0, "perplexity": 0, "fid": 2, "frechet_lite0": 1, "inception_score": 2}.get(
        key, 3
    )
    return f"{value:,.{digits}f}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
