"""The report: logs read back, joined and counted; figures against hand-made ones; the same bytes every time."""

import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalSample,
    EvalSpec,
    EvalStats,
    condense_sample,
    write_eval_log,
)
from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, ModelOutput, ModelUsage
from inspect_ai.scorer import Score
from PIL import Image
from scipy.stats import binomtest

from icl_runner.figures import figure, is_beaten
from icl_runner.prices import read_prices
from icl_runner.report.chart import chart, lines
from icl_runner.report.gallery import Answered, answered
from icl_runner.report.logs import collect
from icl_runner.report.report import as_json, markdown, write_html
from icl_runner.report.side_by_side import side_by_side
from icl_runner.report.tables import tables
from icl_runner.tasks.classify import CONSTRAINED, PAPER
from spae.errors import InputError

MODEL = "spae-lm/default"
CELL = {
    "ways": 2,
    "shots": 1,
    "induction": True,
    "repeats": 0,
    "names": "real",
    "layers": 2,
    "tokens_per_image": 5,
    "words": "image",
}
HEADS = (
    "no induction, 1-shot",
    "1-shot",
    "3-shot",
    "5-shot",
    "1-shot, 1 repeat",
    "1-shot, 3 repeats",
    "1-shot, 5 repeats",
)
USED = ModelUsage(input_tokens=100, output_tokens=3, total_tokens=103)


def sample(id, value, metadata=None, usage=USED, error="500 from | the endpoint\nmore"):
    return EvalSample(
        id=id,
        epoch=1,
        input="prompt",
        target="cat",
        output=ModelOutput.from_content(MODEL, "cat"),
        scores=None if value is None else {"score": Score(value=value, metadata=metadata or {})},
        error=None if value is not None else EvalError(message=error, traceback="", traceback_ansi=""),
        model_usage={MODEL: usage},
        completed_at="2026-01-01T00:01:00+00:00",
    )


def write_log(folder, name, samples, *, task="classify", cell=CELL, model=MODEL, ids=None, **changes):
    spae = {"task": task, "cell": cell, "bundle": "default", "bundle_sha256": "ab" * 32, "data": "tiny"}
    spae |= {"data_fingerprint": "cd" * 32, "seed": 0, "version": "0.1"} | changes.pop("spae", {})
    ids = ids or [one.id for one in samples]
    log = EvalLog(
        status=changes.pop("status", "success"),
        eval=EvalSpec(
            created=changes.pop("created", "2026-01-01T00:00:00+00:00"),
            task=name,
            dataset=EvalDataset(name="tiny", samples=len(ids), sample_ids=ids),
            model=model,
            model_base_url=changes.pop("url", None),
            model_args=changes.pop("args", {}),
            config=EvalConfig(),
            metadata={"spae": spae},
        ),
        stats=EvalStats(
            started_at="2026-01-01T00:00:00+00:00",
            completed_at=changes.pop("completed_at", "2026-01-01T00:02:00+00:00"),
        ),
        samples=samples,
    )
    assert not changes
    write_eval_log(log, str(folder / f"{name}.eval"))


def binary(right, control, key="constrained", count=20):
    """`count` samples, the first `right` of them right, and the last `control` of the control's."""
    values = [{key: int(i < right), f"{key}_other": int(i >= count - control)} for i in range(count)]
    return [sample(f"e{i:03}", value) for i, value in enumerate(values)]


def find(made, start):
    return next(table for table in made if table.title.startswith(start))


def test_papers_table_has_its_columns_average_floor_controls_and_ceiling(tmp_path):
    rights = []
    for number, (induction, shots, repeats) in enumerate(PAPER):
        rights.append(10 + number)
        cell = CELL | {"induction": induction, "shots": shots, "repeats": repeats}
        write_log(tmp_path, f"cell{number}", binary(rights[-1], 10), cell=cell)
    write_log(tmp_path, "ceiling", binary(20, 9), cell=CELL | {"words": "class-name"})
    made = find(tables(collect([tmp_path])), "2-way")
    assert "constrained" in made.title
    assert made.columns[:7] == HEADS
    result, control, ceiling, floor = made.rows
    assert [row.kind for row in made.rows] == ["result", "control", "ceiling", "floor"]
    assert [value.text() for value in result.values[:7]] == [f"{100 * right / 20:.1f}" for right in rights]
    assert result.values[7:] == (f"{np.mean(rights) / 20 * 100:.1f}", "20")
    assert {value.text() for value in control.values[:7]} == {"50.0"}
    assert ceiling.values[1].text() == "100.0"
    assert ceiling.values[0] == "–"
    assert set(floor.values[:8]) == {"50.0"}


def test_a_control_of_the_episodes_own_classes_is_called_so(tmp_path):
    within = CELL | {"control": "another class of the episode"}
    write_log(tmp_path, "cell", binary(15, 2), cell=within)
    write_log(tmp_path, "ceiling", binary(20, 9), cell=CELL | {"words": "class-name"})
    made = tables(collect([tmp_path]))
    result, control, ceiling, _ = find(made, "2-way").rows
    assert control.label == "control: words of an image of another class of the episode"
    assert "control" not in result.label + ceiling.label
    assert any("control another class of the episode" in row.label for row in find(made, "What it took").rows)


def test_runs_that_differ_in_how_or_about_what_a_model_was_asked_are_never_one_cell(tmp_path):
    write_log(tmp_path, "a", binary(15, 2), url="http://a/v1", args={"dialect": "vllm"})
    write_log(tmp_path, "b", binary(5, 2), url="http://b/v1", args={"dialect": "vllm"})
    write_log(tmp_path, "c", binary(6, 2), url="http://b/v1")
    write_log(tmp_path, "d", binary(7, 2), url="http://b/v1", spae={"model_revision": "12345"})
    write_log(tmp_path, "other", binary(8, 2), model="mockllm/other", url="http://b/v1")
    cells = collect([tmp_path])
    assert [len(cell.samples) for cell in cells] == [20] * 5
    [table] = [one for one in tables(cells) if one.title.startswith("2-way")]
    rights = {row.label: row.values[0].mean for row in table.rows if row.kind == "result"}
    asked = {f"{MODEL}, 5 words, asked at http://a/v1 dialect=vllm": 0.75}
    asked |= {f"{MODEL}, 5 words, asked at http://b/v1 dialect=vllm": 0.25}
    asked |= {f"{MODEL}, 5 words, asked at http://b/v1": 0.3}
    assert rights == asked | {
        f"{MODEL}, 5 words, asked at http://b/v1 12345": 0.35,
        "mockllm/other, 5 words": 0.4,
    }


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        (
            {"cell": CELL | {"control": "another class of the episode"}},
            ["control another class", "control –"],
        ),
        ({"spae": {"episodes_sha256": "12" * 32}}, ["episodes 12121212", "episodes "]),
    ],
)
def test_no_cell_takes_the_place_of_another_in_a_table(tmp_path, changes, labels):
    write_log(tmp_path, "a", binary(20, 2), **changes)
    write_log(tmp_path, "b", binary(0, 2))
    rows = [row for row in find(tables(collect([tmp_path])), "2-way").rows if row.kind == "result"]
    assert sorted(row.values[0].mean for row in rows) == [0, 1]
    assert all(any(told in row.label for row in rows) for told in labels)


def test_data_under_two_names_is_refused_and_not_hidden(tmp_path):
    write_log(tmp_path, "a", binary(20, 2))
    write_log(tmp_path, "b", binary(0, 2), spae={"data": "elsewhere"})
    with pytest.raises(InputError, match=r"twice, on .* called otherwise: leave one of the two out"):
        side_by_side(collect([tmp_path]))


def test_scoring_rules_and_ways_are_never_in_one_table(tmp_path):
    both = [sample(f"e{i}", {"open": 0, "constrained": 1}) for i in range(4)]
    write_log(tmp_path, "two", both)
    write_log(tmp_path, "five", both, cell=CELL | {"ways": 5})
    write_log(tmp_path, "nonsense", both, cell=CELL | {"names": "nonsense"})
    made = [table for table in tables(collect([tmp_path])) if "-way" in table.title]
    assert len(made) == 6
    for table in made:
        rule = "constrained" if "constrained" in table.title else "open"
        [row] = [row for row in table.rows if row.kind == "result"]
        assert row.values[0].measure.key == rule
        [floor] = [row for row in table.rows if row.kind == "floor"]
        ways = 5 if table.title.startswith("5") else 2
        assert floor.values[0] == ("0.0" if rule == "open" else f"{100 / ways:.1f}")


def test_cells_outside_the_papers_columns_stand_behind_them(tmp_path):
    write_log(tmp_path, "odd", binary(9, 5), cell=CELL | {"shots": 2, "repeats": 3, "induction": False})
    made = find(tables(collect([tmp_path])), "2-way")
    # Of the paper's columns and their average nothing was measured: they are not there.
    assert made.columns == ("no induction, 2-shot, 3 repeats", "episodes")
    assert made.rows[0].values[0].text() == "45.0"
    assert made.rows[-1].values == ("50.0", "")
    beside = find(tables(collect([tmp_path]), published=True), "2-way")
    # Others report no more than the average by this rule.
    assert beside.columns == ("average", "no induction, 2-shot, 3 repeats", "episodes")
    assert beside.rows[0].values[0] == "–"


@pytest.mark.parametrize(("right", "count"), [(0, 20), (20, 20), (7, 20), (1, 1)])
def test_shares_have_wilsons_interval(tmp_path, right, count):
    write_log(tmp_path, "a", binary(right, 0, count=count))
    found = figure(collect([tmp_path])[0], CONSTRAINED)
    wanted = binomtest(right, count).proportion_ci(method="wilson")
    assert (found.mean, found.count) == (right / count, count)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-6)


def test_controls_that_are_not_beaten_are_marked(tmp_path):
    write_log(tmp_path, "good", binary(20, 3))
    write_log(tmp_path, "bad", binary(11, 10), cell=CELL | {"shots": 3})
    control = find(tables(collect([tmp_path])), "2-way").rows[1]
    assert (control.values[0].not_beaten, control.values[1].not_beaten) == (False, True)
    text = markdown(collect([tmp_path]))
    assert "50.0†" in text
    assert "† the result above" in text


def test_a_run_in_two_pieces_is_the_unbroken_run(tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir()
    pieces.mkdir()
    samples = binary(13, 8)
    ids = [one.id for one in samples]
    write_log(whole, "all", samples)
    broken = [*samples[:5], sample("e005", None, usage=ModelUsage(input_tokens=7, total_tokens=7))]
    write_log(pieces, "z-first", broken, ids=ids, status="started", completed_at="")
    # As inspect does when a run is taken up again: the finished samples are copied into the new log.
    write_log(pieces, "a-second", [*samples[:3], *samples[5:]], ids=ids, created="2026-01-02T00:00:00+00:00")
    [unbroken], [joined] = collect([whole]), collect([pieces])
    one, other = (as_json([cell]) for cell in (unbroken, joined))
    assert [cell["cells"][0].pop("took")["seconds"] for cell in (one, other)] == [120.0, 180.0]
    assert one == other
    assert joined.usage == {MODEL: (2000, 60)}


def test_unfinished_and_failed_samples_are_counted_and_named(tmp_path):
    samples = [*binary(3, 1, count=4), sample("e|9", None)]
    write_log(tmp_path, "a", samples, ids=[f"e{i}" for i in range(8)], status="started", completed_at="")
    [cell] = collect([tmp_path])
    assert (cell.missing, cell.seconds) == (3, 60.0)
    made = tables([cell])
    assert find(made, "What it took").rows[0].values[:3] == ("4", "1", "3")
    assert "(unfinished)" in find(made, "What it took").rows[0].label
    [row] = find(made, "Samples without").rows
    assert row.values == ("500 from | the endpoint", "1", "e|9")
    assert r"500 from \| the endpoint | 1 | e\|9 |" in markdown([cell])
    assert as_json([cell])["cells"][0]["failures"] == [{"id": "e|9", "reason": "500 from | the endpoint"}]


def test_samples_that_a_stop_cut_off_are_missing_and_did_not_fail(tmp_path):
    cut_off = sample(
        "e9", None, error='CancelledError("Cancelled via cancel scope 7f9f4b10be20 by <Task ..>")'
    )
    write_log(tmp_path, "a", [*binary(3, 1, count=4), cut_off], status="cancelled")
    [cell] = collect([tmp_path])
    assert (len(cell.samples), cell.failures, cell.missing) == (4, (), 1)
    assert cell.usage == {MODEL: (500, 15)}  # what it cost is counted all the same
    assert "CancelledError" not in markdown([cell])
    # The next run asks again.
    write_log(
        tmp_path,
        "b",
        [sample("e9", {"constrained": 1, "constrained_other": 0})],
        created="2026-01-02T00:00:00+00:00",
    )
    [cell] = collect([tmp_path])
    assert (len(cell.samples), cell.missing) == (5, 0)


def test_cost(tmp_path):
    write_log(tmp_path, "a", binary(1, 1))
    (tmp_path / "b").mkdir()
    write_log(
        tmp_path / "b",
        "b",
        [sample("e0", {"vqa": 0.5, "exact": 0})],
        task="vqa",
        cell={"shots": 1},
        model="x/y",
    )
    prices = tmp_path / "prices"
    prices.write_text(json.dumps({"currency": "EUR", MODEL: {"input": 2, "output": 10.0}}))
    cells = collect([tmp_path])
    took = find(tables(cells, read_prices(prices)), "What it took")
    assert took.columns[-1] == "cost, EUR"
    assert as_json(cells, read_prices(prices))["currency"] == "EUR"
    rows = took.rows
    assert rows[0].values[3:5] == ("2,000", "60")
    assert rows[0].values[-1] == f"{2000 * 2 / 1e6 + 60 * 10 / 1e6:.4f}"
    # The log's usage says which model was paid, and that is the one with a price.
    assert rows[1].values[-1] == f"{100 * 2 / 1e6 + 3 * 10 / 1e6:.4f}"
    prices.write_text("{}")
    without = find(tables(cells, read_prices(prices)), "What it took")
    assert without.columns[-1] == "cost"
    assert without.rows[0].values[-1] == "no price"
    assert "cost" not in find(tables(cells), "What it took").columns


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"m": 1}', '{"currency": 1}', '{"m": {"input": 1}}', '{"m": {"input": -1, "output": 2}}'],
)
def test_bad_prices(tmp_path, text):
    (tmp_path / "prices").write_text(text)
    with pytest.raises(InputError, match="prices"):
        read_prices(tmp_path / "prices")


def test_bad_logs(tmp_path):
    with pytest.raises(InputError, match="no log at"):
        collect([tmp_path / "none"])
    with pytest.raises(InputError, match="no logs in"):
        collect([tmp_path])
    with pytest.raises(InputError, match="got none"):
        collect([])
    write_log(tmp_path, "other", [], ids=["a"], task="something")
    with pytest.raises(InputError, match="no log of spae-icl run"):
        collect([tmp_path])
    (tmp_path / "other.eval").write_bytes(b"PK\3\4 cut short")
    with pytest.raises(InputError, match="cannot read the log"):
        collect([tmp_path])
    (tmp_path / "other.eval").unlink()
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match=r"list\.json: it is damaged, or no log") as caught:
        collect([tmp_path])
    assert "\n" not in str(caught.value)


def test_captions_over_the_corpus(tmp_path):
    references = [["a dog runs over the grass", "a brown dog on grass"], ["two cups of coffee on a table"]]
    answers = ["a dog runs over the grass", "two cups on a wooden table"]
    samples = [
        sample(f"e{i}", {"bleu4": 0.0}, {"answer": answer, "answer_other": "a red bus", "references": one})
        for i, (answer, one) in enumerate(zip(answers, references, strict=True))
    ]
    write_log(tmp_path, "a", samples, task="caption", cell={"shots": 2, "layers": 2, "tokens_per_image": 5})
    made = find(tables(collect([tmp_path])), "Captions")
    result, control = made.rows
    from pycocoevalcap.rouge.rouge import Rouge

    wanted, _ = Rouge().compute_score(dict(enumerate(references)), {i: [a] for i, a in enumerate(answers)})
    assert result.values[1].mean == pytest.approx(wanted)
    assert control.values[1].mean < wanted
    assert result.values[0].low is None
    assert result.values[0].text() != control.values[0].text()
    assert result.values[-1] == "2"


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def transform_samples(count=14):
    return [
        sample(
            f"e{i:02}",
            {
                "psnr": 10.0 + i,
                "psnr_oracle": 25.0,
                "psnr_nothing": 12.0 + i,
                "ssim": 0.5,
                "ssim_oracle": math.nan,
            },
            {
                "condition": f"darker <{i}>",
                "words": "dog park",
                "target_words": "cat park",
                "layers": 1,
                "repairs": {"unknown": 2},
                "target_png": png("red"),
                "input_png": png("blue"),
            },
        )
        for i in range(count)
    ]


def test_charts_hold_results_with_their_controls_ceilings_and_floors(tmp_path):
    write_log(tmp_path, "one", binary(13, 8))
    write_log(tmp_path, "three", binary(16, 9), cell=CELL | {"shots": 3})
    write_log(tmp_path, "ceiling", binary(20, 9), cell=CELL | {"words": "class-name"})
    table = find(tables(collect([tmp_path])), "2-way")
    drawn = lines(table)
    assert [(line.kind, line.figure.mean, [one.mean for one in line.controls]) for line in drawn] == [
        ("result", 13 / 20, [8 / 20]),
        ("ceiling", 1.0, []),
        ("result", 16 / 20, [9 / 20]),
    ]
    assert {line.floor for line in drawn} == {50.0}
    assert [line.label.partition(",")[0] for line in drawn] == ["1-shot", "1-shot", "3-shot"]
    html = chart(table)
    wanted = binomtest(13, 20).proportion_ci(method="wilson")
    assert f'x1="{wanted.low:.2%}" x2="{wanted.high:.2%}"' in html
    assert 'class="result" cx="65.00%"' in html
    Page().feed(html)
    # What is no share has no place between 0 and 100.
    write_log(tmp_path, "transform", transform_samples(2), task="transform", cell={"kind": "noise"})
    assert chart(find(tables(collect([tmp_path])), "Images from images")) == ""


def seen(id, right, photograph="data:image/jpeg;base64,/9j/"):
    answers = {"open": " no\n\n", "constrained": "cat <b>" if right else "dog"}
    names = ["dog", "cat <b>"]
    shown = {"answers": answers, "truth": "cat <b>", "names": names, "words": "fur tail", "query_key": "k"}
    made = sample(id, {"open": 0, "constrained": int(right), "constrained_other": 0}, shown)
    picture = ContentImage(image=photograph)
    made.input = [ChatMessageUser(content=[picture, ContentText(text="Input: fur tail")])]
    return made


def test_the_gallery_shows_right_and_wrong_answers(tmp_path):
    long = "data:image/jpeg;base64," + "A" * 4000  # inspect keeps it apart
    samples = [seen(f"e{i:02}", right=i >= 6) for i in range(14)]
    write_log(tmp_path, "a", [*samples, seen("e99", True, "https://elsewhere/x.jpg")])
    write_log(tmp_path, "b", [condense_sample(seen("e00", False, long))], cell=CELL | {"shots": 3})
    write_log(tmp_path, "ceiling", [seen("e00", True)], cell=CELL | {"words": "class-name"})
    _, one, three = collect([tmp_path])
    shown = answered(one, 8)
    assert [(entry.right, entry.answer) for entry in shown] == [(True, "cat <b>")] * 4 + [(False, "dog")] * 4
    assert {entry.words for entry in shown} == {"fur tail"}
    assert answered(three, 8)[0].photograph == long
    write_html([one, three], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "the first that were wrong (constrained to the names) of 15" in text
    assert text.count("✓ cat &lt;b&gt;") == 4
    assert text.count("✗ dog") == 5
    assert text.count("It is: cat &lt;b&gt;, one of dog, cat &lt;b&gt;<") == 9
    page = Page()
    page.feed(text)
    assert len(page.links) == 9
    # A log can name any address: the page asks for none.
    write_html([replace(one, samples=one.samples[-1:])], tmp_path / "page.html")
    assert "elsewhere" not in (tmp_path / "page.html").read_text("utf-8")


def test_captions_are_neither_right_nor_wrong(tmp_path):
    shown = {
        "answer": "a dog",
        "answers": {"caption": " a dog\n"},
        "references": ["a wolf", "x"],
        "words": "fur",
    }
    write_log(tmp_path, "a", [sample("e0", {"bleu4": 0.0}, shown)], task="caption", cell={"shots": 1})
    cells = collect([tmp_path])
    assert answered(cells[0], 8) == [Answered("", "fur", "", (), "a wolf", "a dog", None)]


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.depth, self.links = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "img"):
            self.depth.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag


@pytest.fixture
def no_decoder(monkeypatch):
    class Decoder:
        def decode(self, texts, layers):
            return np.stack([np.full((8, 8, 3), 7 * len(text), np.uint8) for text in texts])

    monkeypatch.setattr("spae.load", lambda name: Decoder())
    monkeypatch.setattr("spae.bundle.sha256", lambda name: "ab" * 32)


def test_page_shows_generations_beside_their_targets(tmp_path, no_decoder):
    write_log(tmp_path, "a", transform_samples(), task="transform", cell={"kind": "brightness", "layers": 1})
    write_log(tmp_path, "b", binary(9, 4))
    cells = collect([tmp_path])
    assert [cell.task for cell in cells] == ["classify", "transform"]
    write_html(cells, tmp_path / "page.html", published=True)
    text = (tmp_path / "page.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert not page.depth
    assert len(page.links) == 12 * 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?://|@import|url\(|\{\{", text)
    assert "darker &lt;0&gt;" in text
    assert "2 unknown" in text
    repaired = find(tables(cells), "Words that were repaired")
    assert repaired.columns == ("pictures", "unknown")
    assert repaired.rows[0].values == ("14", "28")
    assert "the first 12 of 14" in text.lower()
    assert "reported, unverified: arXiv 2403.07874" in text
    # PSNR of the input left alone is higher by two in every sample.
    assert "undefined" in text
    row = find(tables(cells), "Images from images").rows
    assert [one.kind for one in row] == ["result", "ceiling", "control"]
    assert row[2].values[0].not_beaten
    # What the target's own words decode to is there to be fallen short of.
    assert not row[1].values[0].not_beaten
    assert text.index("Images from images") < text.index("darker") < text.index("What it took")


def test_digits_have_their_floor(tmp_path):
    write_log(
        tmp_path, "a", binary(4, 0, key="digit"), task="generate", cell={"condition": "class", "layers": 4}
    )
    rows = find(tables(collect([tmp_path])), "Images from text").rows
    assert rows[0].values[0].text() == "20.0"
    assert (rows[-1].kind, rows[-1].values[0]) == ("floor", "10.0")


def test_a_ceiling_outside_of_the_papers_table_is_no_result(tmp_path):
    """And what one reason explains is explained once."""
    asked = {"ask": "corner", "shots": 4, "tokens_per_image": 8}
    right = {"constrained": 1, "constrained_other": 0, "calibrated": 1, "calibrated_other": 0}
    for words in ("regions", "names"):
        samples = [sample(f"e{i}", right) for i in range(4)]
        write_log(tmp_path, words, samples, task="corners", cell=asked | {"words": words})
    made = find(tables(collect([tmp_path])), "Where it is")
    assert [row.kind for row in made.rows] == ["ceiling", "result", "control", "floor"]
    assert "the true names in the corners" in made.rows[0].label
    assert (made.rows[3].label, made.rows[3].values[:2]) == ("floor: one of four", ("25.0", "25.0"))


def test_a_cell_without_any_score_has_no_table_of_results(tmp_path):
    write_log(tmp_path, "a", [sample("e0", None)], task="vqa", cell={"shots": 4})
    write_log(tmp_path, "b", [sample("e0", None)], cell=CELL)
    cells = collect([tmp_path])
    assert [table.title for table in tables(cells)] == [
        "What it took",
        "Samples without a score",
        "What it was measured with",
    ]
    write_html(cells, tmp_path / "page.html")
    assert "2 more have no score" in (tmp_path / "page.html").read_text("utf-8")


def test_labels_say_what_tells_rows_apart(tmp_path):
    for seed in (0, 1):
        write_log(tmp_path, f"seed{seed}", binary(9, 4), spae={"seed": seed})
    labels = [row.label for row in find(tables(collect([tmp_path])), "2-way").rows if row.kind == "result"]
    assert labels == [f"{MODEL}, 5 words, seed {seed}" for seed in (0, 1)]


def test_another_bundle_than_the_logs(tmp_path, no_decoder):
    spae = {"bundle_sha256": "00" * 32}
    write_log(tmp_path, "a", transform_samples(1), task="transform", cell={"kind": "noise"}, spae=spae)
    with pytest.raises(InputError, match="not the one of the logs"):
        write_html(collect([tmp_path]), tmp_path / "page.html")


def test_the_same_logs_give_the_same_bytes(tmp_path, no_decoder):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, order in ((first, (0, 1, 2)), (second, (2, 0, 1))):
        folder.mkdir()
        logs = (
            ("one", binary(9, 4), {}),
            ("two", binary(12, 4), {"cell": CELL | {"shots": 3}}),
            ("three", transform_samples(3), {"task": "transform", "cell": {"kind": "noise"}}),
        )
        for i in order:
            name, samples, options = logs[i]
            write_log(folder, name, samples, **options)
    made = []
    for folder in (first, second):
        cells = collect([folder])
        write_html(cells, folder / "page.html")
        made.append((markdown(cells), json.dumps(as_json(cells)), (folder / "page.html").read_bytes()))
    assert made[0] == made[1]


def test_published_rows(tmp_path):
    write_log(tmp_path, "a", [sample(f"e{i}", {"open": 1}) for i in range(3)])
    table = find(tables(collect([tmp_path]), published=True), "2-way")
    reported = [row for row in table.rows if row.kind == "published"]
    assert {len(row.values) for row in table.rows} == {len(table.columns)}
    for row in reported:
        values = [float(value) for value in row.values[:7] if value != "–"]
        if len(values) == 7:
            assert np.mean(values) == pytest.approx(float(row.values[7]), abs=0.051)
    assert sum("unverified" in row.label for row in reported) == 5
    assert len(reported) == 6
    assert not any(row.kind == "published" for row in find(tables(collect([tmp_path])), "2-way").rows)


def test_few_samples_that_all_agree_beat_nothing():
    """All differences are one: their interval has no width, but coins would fall so, too."""
    for count, beaten in ((2, False), (5, False), (6, True)):
        right, wrong = ({str(i): value for i in range(count)} for value in (1.0, 0.0))
        assert is_beaten(CONSTRAINED, right, wrong) == beaten == (binomtest(count, count).pvalue < 0.05)
