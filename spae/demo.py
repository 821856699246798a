"""`spae demo`: the photographs that come with the project, as words and back, on one self-contained page."""

from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from spae.errors import InputError
from spae.files import write_file
from spae.history import History
from spae.images import data_url, open_image, to_array, to_png
from spae.metrics import psnr
from spae.pages import fill
from spae.pyramid import Pyramid, grids_text

if TYPE_CHECKING:
    from spae.tokenizer import Tokenizer

OPEN_LAYERS = 4  # the words of finer layers are folded away
PHOTOGRAPHS = Path(str(files("spae") / "photographs"))


@dataclass(frozen=True)
class Credit:
    """Of one photograph, as the table in photographs/README.md gives it."""

    what: str
    author: str
    source: str
    licence: str


def read_credits() -> dict[str, Credit]:
    """File name -> credit of every photograph that comes with the project."""
    table = {}
    for line in (PHOTOGRAPHS / "README.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].endswith(".jpg"):
            table[cells[0]] = Credit(*cells[1:])
    return table


def write_demo(tokenizer: "Tokenizer", name: str, folder: str | Path) -> Path:
    """Write index.html into `folder`, which is made if missing; print progress and where the page is.

    `name`: what to call the tokenizer on the page. Returns the page's path.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
    credits = read_credits()
    photographs = [(PHOTOGRAPHS / name).read_bytes() for name in credits]
    squares = [tokenizer.square(open_image(data)) for data in photographs]
    originals = np.stack([to_array(square, tokenizer.image_size) for square in squares])
    pyramids = tokenizer.encode(squares)
    print(f"{len(photographs)} photographs encoded", flush=True)
    # All photographs at once: one compiled decoder for each prefix.
    prefixes = []
    for layers in range(1, len(tokenizer.shape) + 1):
        prefixes.append(tokenizer.decode(pyramids, layers))
        print(
            f"layers 1 to {layers} decoded: {psnr(prefixes[-1], originals).mean():.2f} dB on average",
            flush=True,
        )
    articles = [
        _article(credit, photographs[i], pyramids[i], originals[i], [prefix[i] for prefix in prefixes])
        for i, credit in enumerate(credits.values())
    ]
    page = folder / "index.html"
    write_file(page, _page(tokenizer, name, articles).encode())
    print(f"the page: {page.resolve()}", flush=True)
    return page


def _page(tokenizer: "Tokenizer", name: str, articles: list[str]) -> str:
    model = tokenizer.vocabulary.language_model or "a frozen language model"
    facts = {
        "tokenizer": name,
        "vocabulary": f"{len(tokenizer.vocabulary):,} words of {model}",
        "layers": f"{grids_text(tokenizer.shape.layers).replace('x', '×')}, {tokenizer.shape.tokens()} words",
    } | _training(tokenizer.info)
    filled = {
        "COLUMNS": str(len(tokenizer.shape) + 1),
        "SIZE": str(tokenizer.image_size),
        "FACTS": "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        "PHOTOGRAPHS": "\n".join(articles),
    }
    return fill("spae", "demo.html", filled)


def _training(info: dict[str, Any]) -> dict[str, str]:
    """What a bundle says of its training, as far as it says it."""
    history = History.of(info)
    facts = {
        "trained for": f"{history.steps:,} steps" if history.steps else "",
        "training images": f"{history.images:,}" if history.images else "",
    }
    return {key: value for key, value in facts.items() if value}


def _article(
    credit: Credit,
    photograph: bytes,
    pyramid: Pyramid,
    original: UInt8[np.ndarray, "s s 3"],
    prefixes: list[UInt8[np.ndarray, "s s 3"]],
) -> str:
    title = escape(credit.what[0].upper() + credit.what[1:])
    figures = [_figure(original, f"{title}, small", "photograph")]
    for layers, image in enumerate(prefixes, start=1):
        count = pyramid.shape.tokens(layers)
        words = f"{count} word{'s' if count > 1 else ''}"
        caption = f"{words}<br>{float(psnr(image, original)):.1f} dB"
        figures.append(_figure(image, f"{title} from {words}", caption))
    lines = [
        _line(number, words, ids.shape)
        for number, (words, ids) in enumerate(zip(pyramid.words(), pyramid.ids, strict=True), start=1)
    ]
    data = data_url(photograph, "jpeg")
    return f"""<article>
<h2>{title} <small>{escape(credit.author)}, {escape(credit.licence)}</small></h2>
<div class="photograph"><img src="{data}" alt="{title}"><div class="place"></div></div>
<div class="words">
{"".join(lines)}</div>
<div class="prefixes">
{"".join(figures)}</div>
</article>"""


def _line(number: int, words: list[str], grid: tuple[int, ...]) -> str:
    """The words of a layer as text that can be copied, each in a span that knows its place."""
    spans = " ".join(f'<span class="word">{escape(word)}</span>' for word in words)
    place = f'data-rows="{grid[0]}" data-columns="{grid[1]}"'
    line = f'<p class="layer{number}" {place}>{spans}</p>'
    if number <= OPEN_LAYERS:
        return line + "\n"
    return f"<details><summary>layer {number}: {len(words)} words</summary>{line}</details>\n"


def _figure(image: UInt8[np.ndarray, "s s 3"], alt: str, caption: str) -> str:
    data = data_url(to_png(image), "png")
    return f'<figure><img src="{data}" alt="{alt}"><figcaption>{caption}</figcaption></figure>\n'
