"""Judges: a strict first line, means over what was judged, failures counted; against figures made by hand."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl_runner.answer_file import Answer
from icl_runner.cli import main
from icl_runner.figures import ratio_of_means
from icl_runner.judge.cases import Judged, Unreadable
from icl_runner.judge.llava_bench import Pair, relative, two_scores
from icl_runner.judge.vip_bench import score

IDS = ("1", "2", "3", "4")


def _lines(path, records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def llava(tmp_path) -> list[str]:
    asked = [
        {"question_id": int(id), "image": f"{id}.jpg", "text": f"ask {id}", "category": "ab"[int(id) > 2]}
        for id in IDS
    ]
    seen = [{"image": f"{id}.jpg", "caption": ["a cat", f"number {id}"]} for id in IDS]
    wanted = [{"question_id": int(id), "text": f"reference {id}"} for id in IDS]
    said = [{"question_id": int(id), "text": f"said {id}"} for id in IDS]
    files = ["--questions", _lines(tmp_path / "q", asked), "--contexts", _lines(tmp_path / "c", seen)]
    files += ["--references", _lines(tmp_path / "r", wanted)]
    return ["judge", _lines(tmp_path / "answers.jsonl", said), *files, "--by", "fake/m"]


@pytest.fixture
def vip(tmp_path) -> list[str]:
    asked = {
        "v1_0": {
            "imagename": "0.png",
            "question": "What?",
            "answer": "a cat <OR> cat",
            "capability": ["Rec"],
        },
        "v1_1": {"imagename": "1.png", "question": "How much?", "answer": 7, "capability": ["Math", "OCR"]},
    }
    (tmp_path / "meta.json").write_text(json.dumps(asked))
    (tmp_path / "said.json").write_text(json.dumps({"v1_0": "a cat", "v1_1": "9"}))
    return [
        "judge",
        str(tmp_path / "said.json"),
        "--bench",
        "vip",
        "--questions",
        str(tmp_path / "meta.json"),
    ]


@given(
    st.integers(10, 100),
    st.integers(10, 100),
    st.sampled_from([" ", ", ", ",", "\t", "  "]),
    st.sampled_from(["", "\nThe first is better: 3 4", "\r\n5"]),
)
def test_two_scores_are_read_whatever_stands_between(one, other, between, behind):
    found = two_scores(Answer(f" {one / 10:g}{between}{other / 10:g} {behind}"))
    assert found == Pair(one / 10, other / 10)


@pytest.mark.parametrize("text", ["**8 6**", "*8, 6*\nThe first ..", "__8 6__"])
def test_two_scores_in_bold(text):
    assert two_scores(Answer(text)) == Pair(8, 6)


@given(st.text(alphabet="0123456789 .,/-a\n", max_size=12))
def test_what_is_no_pair_of_scores_is_never_taken_for_one(text):
    """Against a slow reading: two fields of the first line that are numbers from 1 to 10."""
    first = text.strip().split("\n")[0].strip() if text.strip() else ""
    fields = first.replace(",", " ").split()
    try:
        found = two_scores(Answer(text))
    except Unreadable:
        numbers = [
            field for field in fields if field.replace(".", "", 1).isdigit() and field[0] != "." != field[-1]
        ]
        in_range = len(numbers) == 2 and all(1 <= float(number) <= 10 for number in numbers)
        # Refused though two numbers stand there: written with signs, leading zeros or many digits.
        assert len(fields) != 2 or not in_range or first.count(",") > 1 or any(len(n) > 2 for n in fields)
    else:
        assert [found.reference, found.candidate] == list(map(float, fields))
        assert 1 <= found.reference <= 10
        assert 1 <= found.candidate <= 10


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "8 11",
        "0 5",
        "8/10 7/10",
        "Scores: 8 7",
        "8 7 6",
        "-8 7",
        "8,,7",
        "eight 7",
        "**8 7",
        "8** 7",
        "****",
    ],
)
def test_what_is_no_pair_of_scores(text):
    with pytest.raises(Unreadable):
        two_scores(Answer(text))


@given(st.integers(0, 10))
def test_tenths_are_scores(tenths):
    for text in (
        f"{tenths / 10}",
        f"**{tenths / 10}**\nbecause",
        f"{tenths / 10:.2f}\nbecause 0.7",
        f" {tenths / 10:g} ",
    ):
        assert score(Answer(text)) == tenths / 10


@pytest.mark.parametrize("text", ["", "0.55", "1.1", "-0.1", "0.5 0.6", "Score: 0.5", "50%", "nan", "1e-1"])
def test_what_is_no_tenth(text):
    with pytest.raises(Unreadable):
        score(Answer(text))


def test_a_ratio_of_means_and_its_interval():
    rng = np.random.default_rng(0)
    below = rng.uniform(4, 9, 400)
    above = 0.8 * below + rng.normal(0, 1, 400)
    ratio, low, high = ratio_of_means(above.tolist(), below.tolist())
    assert ratio == pytest.approx(above.mean() / below.mean())
    drawn = rng.integers(0, 400, (4000, 400))
    bootstrap = np.quantile(above[drawn].mean(1) / below[drawn].mean(1), [0.025, 0.975])
    assert [low, high] == pytest.approx(bootstrap, abs=0.002)


def test_relative_is_a_ratio_of_means_over_what_was_judged():
    found = Judged({"1": {1: Pair(8, 4), 2: Pair(10, 8)}, "2": {2: Pair(3, 3)}}, Counter())
    figure = relative(found, IDS)
    assert (figure.mean, figure.count) == (
        pytest.approx((6 + 3) / (9 + 3)),
        2,
    )  # the mean of ratios is another
    assert relative(found, ["3"]) is None
    assert relative(found.run(2), IDS).mean == pytest.approx((8 + 3) / (10 + 3))


def test_llava_bench_through_the_door(llava, tmp_path, capsys, fake_model):
    # Nothing of the second category can be read: the original would give it 100.
    answers = {"1": "10 5\nmuch better", "2": "6 3", "3": "both are fine", "4": "8 12"}
    fake_model.answer = lambda prompt: answers[prompt.rpartition("said ")[2][0]]
    assert main([*llava, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["judge"], record["runs"]) == ("fake/m", 1)
    assert record["failed"] == {"no two scores in the first line": 1, "a score outside of 1 to 10": 1}
    assert list(record["scores"]) == ["all", "a", "b"]
    assert record["scores"]["all"]["score"] == 0.5
    assert record["scores"]["all"]["mean of the reference"] == 8
    assert record["scores"]["b"] == {"score": None, "low": None, "high": None, "runs": [None], "questions": 0}
    [prompt] = [one for one in fake_model.prompts if "said 1" in one]
    assert (
        prompt.index("a cat\nnumber 1")
        < prompt.index("ask 1")
        < prompt.index("reference 1")
        < prompt.index("said 1")
    )
    # Another run asks for that run alone; another judge needs another file.
    assert main([*llava, "--runs", "2"]) == 0
    assert len(fake_model.prompts) == 8
    printed = capsys.readouterr().out
    assert "| **all** | 50.0 [50.0–50.0] | 50.0–50.0 | 4.00 | 8.00 | 2 |" in printed
    assert "4 questions, 2 runs. Judgements without a score, in no mean: 2 a score outside" in printed
    assert main([*llava[:-1], "fake/n"]) == 1
    assert 'judge was "fake/m", now "fake/n"' in capsys.readouterr().err


def test_vip_bench_through_the_door(vip, capsys, fake_model):
    def judge(prompt: str) -> str:
        return "1\nyes" if prompt.endswith("Answer: a cat\nOutput:") else "0.3"

    fake_model.answer = judge
    assert main([*vip, "--by", "fake/m", "--runs", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ")[0].strip("| *") for line in lines if line.startswith("| **")]
    assert rows == ["all", "rec", "ocr", "math"]
    assert any(line.startswith("| **all** | 65.0 ") for line in lines)
    assert [config.seed for config in fake_model.configs][:3] != [None] * 3
    assert all("<AND>" in prompt for prompt in fake_model.prompts)


def test_a_judge_that_fails_is_1_and_says_why(vip, llava, tmp_path, capsys, fake_model):
    def broken(prompt: str) -> str:
        if prompt.endswith("Right: 7\nAnswer: 9\nOutput:"):
            raise RuntimeError("no such luck")
        return "0.5"

    fake_model.answer = broken
    assert main([*vip, "--by", "fake/m", "--max-retries", "0"]) == 1
    out, err = capsys.readouterr()
    assert "in no mean: 1 no answer" in out
    assert "no such luck" in err
    fake_model.answer = lambda prompt: "nothing"
    assert main([*llava, "--max-retries", "0"]) == 1
    assert "none of 4 judgements has a score" in capsys.readouterr().err


def test_wrong_files_are_one_line(llava, vip, tmp_path, capsys):
    assert main([*llava[: llava.index("--contexts")], "--by", "fake/m"]) == 1
    assert main([*vip, "--by", "fake/m", "--contexts", str(tmp_path / "c")]) == 1
    _lines(tmp_path / "answers.jsonl", [{"question_id": 1, "text": "said 1"}])
    assert main(llava) == 1
    (tmp_path / "answers.jsonl").write_text('{"question_id": 1')
    assert main(llava) == 1
    (tmp_path / "said.json").write_text("{}")
    assert main([*vip, "--by", "fake/m"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in err] == ["spae-icl"] * 5
    assert "3 have none, such as '2'" in err[2]
    assert "1 left out (1 json" in err[3]
