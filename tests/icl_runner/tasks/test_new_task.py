"""A new task is one file: it is asked, scored and reported by everybody who never heard of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from icl_runner import tasks
from icl_runner.cli import main
from icl_runner.task import REGISTERED

# inspect-ai leaves streams between its own tasks open at the end of a run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.usefixtures("streams_collected"),
]

COUNT_LETTERS = '''
"""How many letters the name of an image's file has."""

from dataclasses import dataclass

from icl_runner.data import sets
from icl_runner.figures import Measure
from icl_runner.options import Switch
from icl_runner.prompts import Prompt
from icl_runner.task import task
from icl_runner.texts.task import QuestionTask


@task
@dataclass(frozen=True, kw_only=True)
class CountLetters(QuestionTask):
    """Letters, counted.

    example: spae-icl run count_letters --model spae-lm/default
    """

    title = "Letters counted"
    measures = (Measure("near", "nearly right, %", 100, 1, share=True),)
    rules = ("near",)
    max_tokens = 4
    wanted = "images"

    data: str = "photographs"
    shout: Switch = False  # ask in capitals

    def examples(self):
        return sets.pictured(self.data, self.split)

    def cells(self, images):
        return self.few_shot(images, (0,))

    def is_usable(self, example, class_names):
        return True

    def prompt(self, support, query, words):
        asked = f"How many letters has {query.label}, shown as {words}?"
        return Prompt("", asked.upper() if self.shout else asked)

    def truth(self, query, class_names):
        return str(len(query.label)), {"letters": len(query.label)}

    @staticmethod
    def score(shown, answers):
        values = {
            key.replace("answer", "near"): float(abs(int(answer) - shown["letters"]) <= 1)
            for key, answer in answers.items()
        }
        return values, {"answers": dict(answers), "truth": str(shown["letters"]), "words": shown["words"]}
'''


@pytest.fixture
def new_task(tmp_path, monkeypatch) -> Iterator[str]:
    """The file, found as if it lay in the folder of tasks."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/count_letters.py").write_text(COUNT_LETTERS)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "tasks")])
    yield "count_letters"
    REGISTERED.pop("count_letters", None)
    sys.modules.pop("icl_runner.tasks.count_letters", None)


def test_a_new_task_is_one_file(new_task, class_folders, tmp_path, capsys, fake_model, monkeypatch):
    from icl_runner.data.images import Images

    monkeypatch.setattr(
        Images, "words", lambda self, keys, layers: {key: Path(key).parent.name for key in keys}
    )
    monkeypatch.setattr(Images, "tokens", lambda self, layers: 5)
    with pytest.raises(SystemExit):
        main(["run", new_task, "--help"])
    printed = capsys.readouterr().out
    assert "Letters, counted." in printed
    assert "ask in capitals" in printed
    fake_model.answer = lambda prompt: "6" if "SHOWN AS BEAGLE?" in prompt else "99"
    logs, page = tmp_path / "logs", tmp_path / "page.html"
    given = ["run", new_task, "--model", "fake/m", "--data", str(class_folders), "--shout"]
    assert main([*given, "--examples", "35", "--log-dir", str(logs)]) == 0
    printed = capsys.readouterr().out
    assert "## Letters counted" in printed
    # Seven of 35 are beagles.
    assert "**count_letters, fake/m, 5 words** | 20.0" in printed
    assert "control: words of another image" in printed
    assert main(["report", str(logs), "--html", str(page)]) == 0
    assert capsys.readouterr().out == printed
    assert page.read_text("utf-8").count("✓ 6") == 4
