"""Answers that survive a kill: what is there is kept, what was broken off asked again, what is another's refused."""

import pytest

from icl_runner.answer_file import Answer, AnswerFile
from spae.errors import InputError

HEADING = {"format": "test", "model": "fake/m"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "made.json.answers"
    with AnswerFile(path, HEADING) as answers:
        answers.add("one", "d1", Answer("first\nline \ud800"))
        answers.add("two", "d2", Answer("", cut=True))
    return path


def test_what_was_added_is_there_again(file):
    with AnswerFile(file, HEADING) as answers:
        assert (answers["d1"], answers["d2"]) == (Answer("first\nline \ud800"), Answer("", True))
        assert ("d3" in answers, len(answers)) == (False, 2)


@pytest.mark.parametrize("left", [1, 20])
def test_a_last_line_that_was_broken_off_is_removed_with_a_word(file, left, capsys):
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole[:-1]) + whole[-1][:-left])
    with AnswerFile(file, HEADING) as answers:
        assert ("d1" in answers, "d2" in answers) == (True, False)
        answers.add("two", "d2", Answer("again"))
    assert "was broken off within its last line" in capsys.readouterr().err
    with AnswerFile(file, HEADING) as answers:
        assert answers["d2"] == Answer("again")
    assert capsys.readouterr().err == ""


def test_an_earlier_file_does_not_say_its_endpoint(file, tmp_path):
    with AnswerFile(file, HEADING | {"base_url": "http://a/v1"}) as answers:
        assert len(answers) == 2
    with AnswerFile(tmp_path / "new", HEADING | {"base_url": "http://a/v1"}):
        pass
    for other in ("http://b/v1", None):
        with pytest.raises(InputError, match='base_url was "http://a/v1", now'):
            AnswerFile(tmp_path / "new", HEADING | {"base_url": other}).__enter__()


def test_a_heading_that_was_broken_off_begins_anew(file):
    file.write_bytes(file.read_bytes()[:9])
    with AnswerFile(file, HEADING) as answers:
        assert len(answers) == 0


def test_other_settings_damage_and_another_process_are_refused(file, tmp_path):
    with pytest.raises(InputError, match='model was "fake/m", now "fake/other"'):
        AnswerFile(file, HEADING | {"model": "fake/other"}).__enter__()
    with AnswerFile(file, HEADING), pytest.raises(InputError, match="another process is writing"):
        AnswerFile(file, HEADING).__enter__()
    lines = file.read_bytes().splitlines(keepends=True)
    for broken in (b"[1]\n", b'{"key"\n', b'{"key": "one"}\n'):
        file.write_bytes(lines[0] + broken + lines[2])
        with pytest.raises(InputError, match="line 2"):
            AnswerFile(file, HEADING).__enter__()
    with pytest.raises(InputError, match="cannot write"):
        AnswerFile(tmp_path, HEADING).__enter__()
