"""LLaVA's and ViP-LLaVA's files: what was written is read, and what is broken is counted, not passed over."""

import json
from collections import Counter

import pytest

from spae.conversations import (
    Conversation,
    Question,
    Turn,
    read_conversations,
    read_questions,
    write_conversations,
)
from spae.errors import InputError
from spae.polygons import Box

RING = (((0, 0), (9, 0), (9, 9), (0, 9)), ((3, 3), (3, 6), (6, 6), (6, 3)))
GOOD = [
    Conversation("1", "a.jpg", (Turn("human", "<image>\nWhat is this?"), Turn("gpt", "A cat.")), ()),
    Conversation("2", None, (Turn("human", "Hello"), Turn("gpt", "Hi"), Turn("human", "Bye"))),
    Conversation(
        "3",
        "b.jpg",
        (Turn("human", "<image>\nIs <bbox0> left of <bbox1>?"), Turn("gpt", "Yes.")),
        (Box(1, 2, 3, 4), Box(0, 0, 9, 9)),
        (None, RING),
    ),
]


def test_there_and_back(tmp_path):
    write_conversations(tmp_path / "c.json", GOOD)
    read = read_conversations(tmp_path / "c.json")
    assert (list(read.entries), read.faults) == (GOOD, ())
    assert read.summary() == "3 read, 0 left out"
    written = json.loads((tmp_path / "c.json").read_text())
    assert written[2]["bboxes"] == [[1, 2, 4, 6], [0, 0, 9, 9]]
    assert written[2]["segmentations"][1][0] == [0, 0, 9, 0, 9, 9, 0, 9]
    lines = tmp_path / "c.jsonl"
    lines.write_text("".join(json.dumps(entry) + "\n" for entry in written))
    assert read_conversations(lines) == read
    with pytest.raises(InputError, match="entry 4: wanted an id"):
        write_conversations(tmp_path / "c.json", [*GOOD, GOOD[0]])
    with pytest.raises(InputError, match="entry 1: wanted <bbox>"):
        write_conversations(
            tmp_path / "c.json", [Conversation("9", None, (Turn("human", "Where is <bbox>?"),))]
        )


def test_every_broken_line_is_counted(tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    good = {"id": "1", "image": "a.jpg", "conversations": turns}
    broken = {
        "object": [[1], {**good, "image": 3}, {**good, "image": ""}],
        "id": [{**good}, {**good, "id": None}, {**good, "id": True}],
        "turns": [
            {**good, "conversations": []},
            {**good, "conversations": turns[::-1]},
            {**good, "conversations": [*turns, {"from": "human", "value": " "}]},
            {"id": 2, "image": "a.jpg"},
        ],
        "image": [
            {"id": "2", "conversations": turns},
            {**good, "conversations": [{**turns[0], "value": "?"}]},
        ],
        "boxes": [{**good, "bboxes": boxes} for boxes in (3, [[1, 2, 3]], [[1, 2, 1, 4]], [[1, 2, 3, "4"]])]
        + [{**good, "bbox": [[5, 2, 1, 9]]}],
        "polygons": [
            {**good, "bboxes": [[0, 0, 9, 9]], "segmentations": parts}
            for parts in ([], [[]], [[[1, 2, 3, 4]]], [[[1, 2, 3, 4, 5, 6, 7]]], [None, None], [7])
        ],
        "placeholder": [
            {**good, "conversations": [{**turns[0], "value": "<image> <bbox1>"}], "bbox": [[0, 0, 1, 1]]}
        ],
    }
    lines = [
        json.dumps(good),
        "",
        '{"id": "5", ',
        '{"id": "6", "image": "\\ud800',
        json.dumps({**good, "id": 7}),
    ]
    lines += [json.dumps(entry) for entries in broken.values() for entry in entries]
    path = tmp_path / "broken.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"id": "\xff"}\n')
    read = read_conversations(path)
    assert [entry.id for entry in read.entries] == ["1", "7"]
    assert Counter(fault.reason for fault in read.faults) == {
        "blank": 1,
        "json": 3,
        **{reason: len(entries) for reason, entries in broken.items()},
    }
    assert len(read.entries) + len(read.faults) == len(lines) + 1
    assert [fault.place for fault in read.faults[:3]] == ["line 2", "line 3", "line 4"]
    assert read.summary().startswith("2 read, 28 left out (1 blank, 5 boxes, 3 id, 2 image, 3 json")


def test_questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"question_id": 0, "image": "001.jpg", "text": "What is it?", "category": "conv"}\n'
        '{"question_id": 1, "image": "001.jpg", "text": "Why?"}\n'
        '{"question_id": 1, "image": "001.jpg", "text": "Why?"}\n'
        '{"question_id": 2, "image": "001.jpg"}\n'
    )
    read = read_questions(path)
    assert read.entries == (Question("0", "001.jpg", "What is it?", "conv"), Question("1", "001.jpg", "Why?"))
    assert [(fault.place, fault.reason) for fault in read.faults] == [("line 3", "id"), ("line 4", "object")]


def test_what_is_no_file_of_them(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_conversations(tmp_path / "nowhere.json")
    (tmp_path / "half.json").write_text('[{"id": "1"}, ')
    with pytest.raises(InputError, match="not a whole JSON list"):
        read_conversations(tmp_path / "half.json")
    (tmp_path / "none.json").write_text("")
    assert read_conversations(tmp_path / "none.json").summary().startswith("0 read, 1 left out (1 blank")
