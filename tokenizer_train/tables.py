"""The figures of `spae-train eval` as Markdown tables, for people and for docs/results.md."""

from collections.abc import Sequence
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """Tables of reconstruction, of the use of words, and of the few-shot check."""
    blocks = [
        f"{result['bundle']} on {result['images']:,} images of {result['data']}, "
        f"{result['vocabulary']:,} words; means over images.",
        _prefixes(result["prefixes"]),
        _layers(result["layers"]),
    ]
    few_shot = result.get("few_shot")
    if isinstance(few_shot, str):
        blocks.append(f"Few-shot check: {few_shot}.")
    elif few_shot is not None:
        blocks.append(_few_shot(few_shot))
    return "\n\n".join(blocks)


def _prefixes(prefixes: Sequence[dict[str, Any]]) -> str:
    columns = {"layers": "layers", "words": "words", "bits": "bits", "psnr": "PSNR dB", "ssim": "SSIM"}
    columns |= {"stlpips": "STLPIPS", "percentile": "percentile", "percentile_corrected": "hub-corrected"}
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
    return f"{' / '.join(measured) or 'no such file'} ({coded['fits']:.0%})"


def _layers(layers: Sequence[dict[str, Any]]) -> str:
    keys = [
        "layer",
        "words_per_image",
        "distinct",
        "usage",
        "perplexity",
        "percentile",
        "percentile_corrected",
    ]
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


def _number(key: str, value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    digits = {"psnr": 2, "bits": 0, "perplexity": 0}.get(key, 3)
    return f"{value:,.{digits}f}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
