"""Runs: what a broken run loses (nothing finished), and that settings are never mixed."""

import contextlib
import dataclasses
import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from icl_runner import tasks
from icl_runner.cli import main
from icl_runner.episodes import files
from icl_runner.episodes.draw import Episode
from icl_runner.plan import Plan
from icl_runner.report.logs import collect
from icl_runner.report.report import as_json
from icl_runner.run import SETTINGS_FILE, _finished, _in_the_air, _log_buffer, run
from icl_runner.task import Task
from spae.errors import InputError

# inspect-ai leaves streams between its own tasks open at the end of a run.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.usefixtures("streams_collected"),
]


def settings(data: Path, **changes) -> Task:
    given = {"model": "fake/m", "data": str(data), "words": "class-name", "count": 4}
    return tasks.find("classify")(**(given | changes))


def first_name(prompt: str) -> str:
    """The first of the names that the task induction lists."""
    return " " + prompt.partition("one of: ")[2].partition(".")[0].partition(",")[0]


def true_name(prompt: str) -> str:
    """With class names as words the query's words are the answer."""
    return prompt.rpartition("Input:")[2].partition("\n")[0]


def test_a_run_scores_every_sample(class_folders, tmp_path, fake_model):
    fake_model.answer = true_name
    plan = Plan(settings(class_folders, ways=(2, 3)))
    assert run(plan, tmp_path / "logs")
    cells = collect([tmp_path / "logs"])
    assert [cell.setting["ways"] for cell in cells] == [2, 3]
    for cell in cells:
        assert len(cell.samples) == 4
        assert not cell.failures
        assert not cell.missing
        for sample in cell.samples:
            # The control's words are those of a class outside the episode.
            assert sample.values == {"open": 1, "constrained": 1, "open_other": 0, "constrained_other": 0}
    assert len(fake_model.prompts) == 2 * 4 * 4
    assert not fake_model.systems
    assert {config.temperature for config in fake_model.configs} == {0}
    bodies = [config.extra_body for config in fake_model.configs]
    assert sum(body is not None and len(body["spae"]["choices"]) == 3 for body in bodies) == 8
    listed = files.read(tmp_path / "logs" / "classify-2way-1shot-class-name.episodes")
    assert plan.cells[0].name == "classify-2way-1shot-class-name"
    assert listed == list(plan.cells[0].episodes)


def test_a_finished_run_asks_nothing_again(class_folders, tmp_path, fake_model):
    plan = Plan(settings(class_folders))
    assert run(plan, tmp_path)
    before = as_json(collect([tmp_path]))
    assert _finished(tmp_path) == 4
    fake_model.prompts.clear()
    assert run(Plan(settings(class_folders)), tmp_path)
    assert fake_model.prompts == []
    assert as_json(collect([tmp_path])) == before


def test_a_failed_sample_loses_nothing_else_and_is_tried_again(class_folders, tmp_path, fake_model):
    plan = Plan(settings(class_folders))
    unlucky = plan.cells[0].items[2].calls[0].prompt.text

    def answer(prompt: str) -> str:
        if prompt == unlucky:
            raise RuntimeError("the endpoint is on fire")
        return true_name(prompt)

    fake_model.answer = answer
    assert not run(plan, tmp_path)
    (cell,) = collect([tmp_path])
    assert [(failure.id, "on fire" in failure.reason) for failure in cell.failures] == [
        (plan.cells[0].ids[2], True)
    ]
    assert len(cell.samples) == _finished(tmp_path) == 3  # from which the second run counts
    fake_model.answer = true_name
    fake_model.prompts.clear()
    assert run(Plan(settings(class_folders)), tmp_path)
    assert len(fake_model.prompts) == 4
    (cell,) = collect([tmp_path])
    assert len(cell.samples) == 4
    assert not cell.failures


def test_chat_models_get_a_system_message_and_their_own_column(
    class_folders, tmp_path, fake_model, monkeypatch
):
    from icl_runner import constraints

    monkeypatch.setattr(constraints, "_PROVIDERS", ())
    # White space around a message means nothing there; what follows the line is cut off.
    fake_model.answer = lambda prompt: f"\n{first_name(prompt)}\n\nIs that right?"
    assert run(Plan(settings(class_folders, control=False, count=8)), tmp_path)
    (cell,) = collect([tmp_path])
    assert {sample.values["open"] for sample in cell.samples} == {0, 1}
    assert all(sample.values["open"] == sample.values["instructed"] for sample in cell.samples)
    assert all(set(sample.values) == {"open", "instructed"} for sample in cell.samples)
    assert len(fake_model.systems) == len(fake_model.prompts) == 16
    assert all(config.extra_body is None and not config.stop_seqs for config in fake_model.configs)


def test_other_settings_are_refused(class_folders, tmp_path, fake_model):
    assert run(Plan(settings(class_folders)), tmp_path)
    with pytest.raises(InputError, match=r"other settings \(seed was 0, now 1\): choose another --log-dir"):
        run(Plan(settings(class_folders, seed=1)), tmp_path)
    with pytest.raises(InputError, match="count was 4, now 5"):
        run(Plan(settings(class_folders, count=5)), tmp_path)
    # Earlier records held what only other tasks have, too: the same run is not refused for it.
    record = json.loads((tmp_path / SETTINGS_FILE).read_text())
    record["settings"] |= {"drawing": {"samples": 1, "temperature": 0.0}}
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(record))
    assert run(Plan(settings(class_folders)), tmp_path)
    with pytest.raises(InputError, match="seed was 0, now 1"):
        run(Plan(settings(class_folders, seed=1)), tmp_path)
    (tmp_path / SETTINGS_FILE).write_text("[1]")
    with pytest.raises(InputError, match="is not as spae-icl run wrote it"):
        run(Plan(settings(class_folders)), tmp_path)
    (tmp_path / SETTINGS_FILE).write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        run(Plan(settings(class_folders)), tmp_path)


def test_other_episodes_of_the_same_name_are_refused(class_folders, tmp_path, fake_model):
    file = tmp_path / "mine.episodes"
    drawn = Plan(settings(class_folders)).cells[0].episodes
    files.write(file, drawn)
    given = settings(class_folders, episodes_file=str(file))
    assert run(Plan(given), tmp_path / "logs")
    fake_model.prompts.clear()
    for changed in (
        dataclasses.replace(drawn[1], query=dataclasses.replace(drawn[1].query, key=unused_key(drawn[1]))),
        dataclasses.replace(drawn[1], names=dict(reversed(drawn[1].names.items()))),
    ):
        files.write(file, [drawn[0], changed, *drawn[2:]])
        with pytest.raises(InputError, match=r"holds other episodes.* choose another --log-dir"):
            run(Plan(given), tmp_path / "logs")
    assert fake_model.prompts == []
    files.write(file, drawn)
    assert run(Plan(given), tmp_path / "logs")


def unused_key(episode: Episode) -> str:
    """Of another image of the query's class."""
    used = {episode.query.key, *(shot.key for shot in episode.support)}
    return next(key for key in (f"{episode.query.label}/{i}.png" for i in range(7)) if key not in used)


def test_data_that_says_something_else_by_now_is_refused(class_folders, tmp_path, fake_model):
    folder = shutil.copytree(class_folders, tmp_path / "toys")
    assert run(Plan(settings(folder)), tmp_path / "logs")
    (folder / "classes.tsv").write_text("wnid\tname\nteddy\tbear\n")
    with pytest.raises(InputError, match="the data says of its images has changed: labels, captions"):
        run(Plan(settings(folder)), tmp_path / "logs")


def test_a_provider_that_does_not_exist(class_folders, tmp_path):
    with pytest.raises(InputError, match="nosuch"):
        run(Plan(settings(class_folders, model="nosuch/model")), tmp_path / "logs")


def test_an_env_file_is_not_read(class_folders, tmp_path, fake_model, monkeypatch):
    (tmp_path / ".env").write_text("SPAE_TEST_SURPRISE=1\n")
    monkeypatch.chdir(tmp_path)
    seen = []
    fake_model.answer = lambda prompt: seen.append("SPAE_TEST_SURPRISE" in __import__("os").environ) or " x"
    assert run(Plan(settings(class_folders, count=1)), tmp_path / "logs")
    assert seen
    assert not any(seen)


class Endpoint:
    """Text completions over HTTP: each takes 30 ms, and its answer depends on the prompt alone.

    After the first `most` none is answered: so a run cannot end before it is killed.
    """

    def __init__(self, most: float = math.inf, port: int = 0) -> None:
        self.prompts: list[str] = []
        self.end = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(0.03)
                outer.prompts.append(request["prompt"])
                if len(outer.prompts) > most:
                    outer.end.wait()
                choice = {"text": first_name(request["prompt"]), "index": 0, "finish_reason": "stop"}
                usage = {"prompt_tokens": 50, "completion_tokens": 3, "total_tokens": 53}
                body = json.dumps({"choices": [choice], "usage": usage, "model": "m"}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # of a client that was killed
                    self.wfile.write(body)

            def log_message(self, *args) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def arguments(data: Path, endpoint: Endpoint, log_dir: Path) -> list[str]:
    run_it = ["run", "classify", "--data", str(data), "--words", "class-name", "--ways", "2", "3"]
    model = ["--model", "completions/m", "--model-base-url", endpoint.url, "--max-connections", "3"]
    return [*run_it, *model, "--examples", "20", "--log-dir", str(log_dir)]


def without_clock(log_dir: Path) -> dict:
    report = as_json(collect([log_dir]))
    for cell in report["cells"]:
        del cell["took"]
    return report


def test_a_killed_run_goes_on_where_it_was(class_folders, tmp_path, capsys):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    program = "import sys; from icl_runner.cli import main; sys.exit(main(sys.argv[1:]))"
    with Endpoint(most=70) as endpoint:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments(class_folders, endpoint, broken)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 120
        while len(endpoint.prompts) < 70 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        output = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        asked = len(endpoint.prompts)

    cells = collect([broken])
    finished = {sample.id for cell in cells for sample in cell.samples}
    # Four calls a sample, three samples in the air for each of two cells: the rest is on disk.
    assert asked // 4 - 7 <= len(finished) < 40
    assert any(cell.missing for cell in cells)
    assert _finished(broken) == len(finished)

    # Another endpoint at the same address, so that nothing of what the killed run had sent is counted.
    with Endpoint(port=endpoint.port) as endpoint:
        assert main(arguments(class_folders, endpoint, broken)) == 0
        again = capsys.readouterr().out
        # Not one call for a sample that was finished.
        assert len(endpoint.prompts) == 4 * (40 - len(finished))
        assert _finished(broken) == 40  # each once, though two runs have it

        assert main(arguments(class_folders, endpoint, whole)) == 0
        unbroken = capsys.readouterr().out
    assert without_clock(broken) == without_clock(whole)
    assert again.partition("## What it took")[0] == unbroken.partition("## What it took")[0]
    assert "together" in unbroken


def test_how_many_finished_samples_wait_for_the_log(class_folders):
    plan = Plan(settings(class_folders))
    assert [_log_buffer(plan, in_flight) for in_flight in (1, 10, 64)] == [1, 1, 8]
    assert _log_buffer(Plan(settings(class_folders, model="spae-lm/default")), 64) == 1
    assert _log_buffer(Plan(settings(class_folders, count=2500)), 10) == 25


def test_samples_that_share_a_context_of_a_model_in_this_process_are_asked_together():
    def plan(model, *sharing):
        return SimpleNamespace(
            task=SimpleNamespace(model=model), cells=[SimpleNamespace(sharing=one) for one in sharing]
        )

    assert _in_the_air(plan("spae-lm/default", (10, 22), (10, 85)), None) == (10, 850)
    assert _in_the_air(plan("spae-lm/default", (10, 85)), 16) == (16, 16)
    assert _in_the_air(plan("spae-lm/default", None), None) == (None, None)
    assert _in_the_air(plan("completions/m", (10, 85)), None) == (None, None)
