"""The page of the demonstration: the embedded model names, captions and draws, with what is shipped."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import spae
from icl_runner.cells import EMBEDDED
from icl_runner.data import sets
from icl_runner.demo import experiments
from icl_runner.demo.experiments import Answered, Captions, Painting
from icl_runner.pictures.encoding import png_tag, to_base64
from icl_runner.prompts import Prompt
from spae import frozen_lm
from spae.demo import PHOTOGRAPHS, read_credits
from spae.errors import InputError
from spae.files import write_file
from spae.pages import fill
from spae.weights.hub import HUB

LAYERS = 2  # five words a photograph
COLUMNS = {
    "target": "wanted: a shade that no example has",
    "oracle": "its own words, decoded",
    "greedy": "the model, likeliest words",
    "contrast": "the model, words by contrast",
    "random": "control: random words",
}


def write_demo(folder: str | Path, bundle: str = "default", model: str = "default") -> Path:
    """Write icl.html into `folder`, which is made if missing; print progress and where the page is.

    Args:
        bundle: the tokenizer, as `spae.load` takes it.
        model: the embedded model, as `spae.frozen_lm.load` takes it; "spae-lm/" in front of it is understood.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written, or the model is no embedded one.
        BundleError: no such bundle.
    """
    name = model.removeprefix(EMBEDDED)
    if name != "default" and not name.startswith(HUB) and not Path(name).exists():
        wanted = f"{EMBEDDED}default or {EMBEDDED} and the path of a model, or its name on the hub ({HUB}ORG/REPO/FILE)"
        raise InputError(f"the demonstration runs on the embedded model: wanted {wanted}; got {model}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error

    tokenizer, lm = spae.load(bundle), frozen_lm.load(name)
    print(f"the tokenizer and {lm.name} are ready", flush=True)
    left_out = lm.writable(tokenizer.vocabulary.words).note()
    if left_out is not None:
        print(left_out, flush=True)
    photographs = sets.captioned("photographs")
    examples = photographs.examples
    pyramids = tokenizer.encode([photographs.image(one) for one in examples])
    words = {one.image_key: pyramid.text(LAYERS) for one, pyramid in zip(examples, pyramids, strict=True)}
    print(f"{len(words)} photographs are words", flush=True)
    answered = experiments.classified(lm, experiments.episodes(list(words)), words)
    print(f"{len(answered)} questions about them answered", flush=True)
    captions = experiments.captioned(lm, examples, words)
    print(f"{len(captions.written)} captions written", flush=True)
    paintings, prompt = experiments.painted(lm, tokenizer, lambda line: print(line, flush=True))

    facts = {
        "language model": lm.name if lm.revision is None else f"{lm.source}, revision {lm.revision}",
        "tokenizer": bundle.rstrip("/").rpartition("/")[2],
        "words of a photograph": str(tokenizer.shape.tokens(LAYERS)),
        "words of a drawn picture": str(tokenizer.shape.tokens(experiments.LAYERS)),
    }
    if left_out is not None:
        facts["drawn with all words but these"] = left_out
    filled = {
        "FACTS": "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()),
        "EPISODE": _episode(answered, words),
        "CAPTIONS": _captions(captions, {one.image_key: one.captions[0] for one in examples}, words),
        "PAINTINGS": _paintings(paintings, prompt),
        "CREDITS": _credits(),
    }
    path = folder / "icl.html"
    write_file(path, fill("icl_runner", "demo.html", filled).encode())
    print(f"the page: {path.resolve()}", flush=True)
    return path


def _episode(answered: Sequence[Answered], words: Mapping[str, str]) -> str:
    """The questions of the first context, one by one, and the counts over all."""
    support = answered[0].episode.support
    shown = [one for one in answered if one.episode.support == support]
    context = "".join(
        f"<figure>{_photograph(shot.key)}<figcaption><b>{escape(shot.label)}</b> {escape(words[shot.key])}"
        "</figcaption></figure>"
        for shot in support
    )
    rows = "".join(_question(one, words) for one in shown)
    return f"""<h3>The context</h3>
<div class="context">{context}</div>
<h3>The questions</h3>
<div class="scroll"><table class="questions">
<thead><tr><td></td><th>its words</th><th>written freely</th><th>chosen of the two</th>
<th>control: asked with the words of</th></tr></thead>
<tbody>{rows}</tbody></table></div>
{_prompt(shown[0].prompt, "the first of these prompts, whole")}
<h3>All {len(answered)} questions of {len(answered) // len(shown)} such contexts</h3>
{_counts(answered)}"""


def _question(one: Answered, words: Mapping[str, str]) -> str:
    query, other = one.episode.query.key, one.episode.other
    control = (
        f"{escape(_stem(other))}: {escape(words[other])} → {escape(one.answers['constrained_other'].strip())}"
    )
    cells = {
        "its words": escape(words[query]),
        "written freely": _answer(one, "open"),
        "chosen of the two": _answer(one, "constrained"),
        "control": control,
    }
    # The names again, for narrow screens, where a row becomes a card.
    columns = "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in cells.items())
    return f'<tr><td class="thumb">{_photograph(query)}</td>{columns}</tr>\n'


def _answer(one: Answered, key: str) -> str:
    right = one.values[key] == 1
    mark = '<b class="right">right</b>' if right else '<b class="wrong">wrong</b>'
    return f"{escape(one.answers[key].strip() or '(nothing)')} {mark}"


def _counts(answered: Sequence[Answered]) -> str:
    ways = answered[0].episode.ways
    rows = []
    for key, rule, floor in (
        ("open", "written freely: right is exactly the name", "0"),
        ("constrained", "chosen of the two names", f"{len(answered) / ways:.0f}"),
    ):
        right, control = (sum(int(one.values[k]) for one in answered) for k in (key, f"{key}_other"))
        rows.append(
            f'<tr><th scope="row">{rule}</th><td><b>{right}</b> of {len(answered)}</td>'
            f"<td>{control}</td><td>{floor}</td></tr>"
        )
    return (
        '<div class="scroll"><table class="counts"><thead><tr><td></td><th>right</th><th>with the words of another '
        f"image</th><th>floor</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="faint">They share {sum(map(len, experiments.KINDS.values()))} photographs, so this is a '
        "demonstration and no measurement; measurements are in the project's docs/results.md.</p>"
    )


def _captions(captions: Captions, truths: Mapping[str, str], words: Mapping[str, str]) -> str:
    figures = "".join(
        f"<figure>{_photograph(key)}<figcaption><b>{escape(captions.written[key] or '(nothing)')}</b>"
        f"<span>{escape(words[key])}</span><i>{escape(truth)}</i></figcaption></figure>\n"
        for key, truth in truths.items()
    )
    count = len(truths)
    return f"""<div class="captions">{figures}</div>
<p>Does the model read the words at all? Of the {count} true captions, <b>{captions.matched}</b> are likelier to it
behind the words of their own photograph than behind those of any of the {captions.among - 1} others asked beside it;
by chance it would be {count / captions.among:.0f}.</p>"""


def _paintings(paintings: Sequence[Painting], prompt: Prompt) -> str:
    articles = []
    for one in paintings:
        figures = []
        for how, image in one.pictures.items():
            verdict = ""
            if how in ("greedy", "contrast", "random"):
                verdict = (
                    '<b class="right">nearest</b>' if one.right[how] else '<b class="wrong">not nearest</b>'
                )
            alt = f"{one.condition}, {COLUMNS[how]}"
            figures.append(
                f"<figure>{png_tag(to_base64(image), alt)}"
                f"<figcaption>{escape(COLUMNS[how])} {verdict}</figcaption></figure>"
            )
        details = "".join(
            f"<p><b>{escape(COLUMNS[how])}</b> {escape(' '.join(of_how))}</p>"
            for how, of_how in one.words.items()
        )
        articles.append(
            f'<div class="painting"><h3>“{escape(one.condition)}”</h3><div class="pictures">'
            f"{''.join(figures)}</div><details><summary>the words</summary>{details}</details></div>\n"
        )
    counts = {how: sum(one.right[how] for one in paintings) for how in paintings[0].right}
    return f"""{"".join(articles)}
<p>Of {len(paintings)} pictures, nearest to the picture wanted and not to one of the other colours:
<b>{counts["greedy"]}</b> by likeliest words, <b>{counts["contrast"]}</b> by contrast,
{counts["random"]} of random words, {counts["oracle"]} of the words of the pictures wanted.</p>
{_prompt(prompt, "one of the prompts, whole")}"""


def _prompt(prompt: Prompt, title: str) -> str:
    return (
        f"<details><summary>{escape(title)}</summary><pre>{escape(prompt.context)}"
        f"<mark>{escape(prompt.query)}</mark></pre></details>"
    )


def _photograph(key: str) -> str:
    encoded = base64.b64encode((PHOTOGRAPHS / key).read_bytes()).decode()
    return f'<img src="data:image/jpeg;base64,{encoded}" alt="{escape(_stem(key))}">'


def _stem(key: str) -> str:
    return key.removesuffix(".jpg")


def _credits() -> str:
    lines = [f"{one.what}: {one.author}, {one.licence}" for one in read_credits().values()]
    return escape("; ".join(lines))
