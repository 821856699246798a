"""A new task is one file, that of the documentation: asked, scored and reported by all who never heard of it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from icl_runner import tasks
from icl_runner.cli import main
from icl_runner.data.images import Images
from icl_runner.task import REGISTERED

# inspect-ai leaves streams between its own tasks open at the end of a run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.usefixtures("streams_collected"),
]

DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs/in_context.md"


@pytest.fixture
def living(tmp_path, monkeypatch) -> Iterator[str]:
    """The file, found as if it lay in the folder of tasks."""
    [example] = re.findall(r"```python\n(.*?@task.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/living.py").write_text(example)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / "tasks")])
    yield "living"
    REGISTERED.pop("living", None)
    sys.modules.pop("icl_runner.tasks.living", None)


@pytest.fixture
def class_as_words(monkeypatch) -> None:
    """No tokenizer: the words of an image are the folder it lies in."""
    words = lambda self, keys, layers: {key: Path(key).parent.name for key in keys}  # noqa: E731
    monkeypatch.setattr(Images, "words", words)
    monkeypatch.setattr(Images, "tokens", lambda self, layers: 5)


@pytest.mark.usefixtures("class_as_words")
def test_a_new_task_is_one_file(living, class_folders, tmp_path, capsys, fake_model):
    with pytest.raises(SystemExit):
        main(["run", living, "--help"])
    printed = capsys.readouterr().out
    assert "Is it alive?" in printed
    assert "ask in capitals" in printed
    fake_model.answer = lambda prompt: " Yes" if "WORDS: BEAGLE\n" in prompt else " No"
    logs, page = tmp_path / "logs", tmp_path / "page.html"
    given = ["run", living, "--model", "fake/m", "--data", str(class_folders), "--shout"]
    assert main([*given, "--examples", "35", "--log-dir", str(logs)]) == 0
    printed = capsys.readouterr().out
    assert "## Alive or not" in printed
    # Seven of 35 are beagles, and no beagle is on the example's list of what lives.
    assert "**living, fake/m, 5 words** | 80.0" in printed
    assert "control: words of another image" in printed
    assert main(["report", str(logs), "--html", str(page)]) == 0
    assert capsys.readouterr().out == printed
    assert page.read_text("utf-8").count("✗ Yes") == 4
