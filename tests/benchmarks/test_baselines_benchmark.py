"""The benchmark of all baselines: what is done is not done again, and the table has a row for each."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import baselines
from spae.files import write_file


@pytest.fixture
def work(monkeypatch) -> list[str]:
    """What was trained and measured; both are made up."""
    done = []

    def run(command):
        folder = Path(command[command.index("--run.output") + 1])
        steps = int(command[command.index("--optimizer.steps") + 1])
        assert int(command[command.index("--optimizer.warmup-steps") + 1]) <= steps
        done.append(f"train {folder.name} {steps}")
        if folder.name == "rq" and steps == 7:
            return SimpleNamespace(returncode=1)
        (folder / "bundle").mkdir(parents=True, exist_ok=True)
        training = {"seconds": 1_234, "config": {"optimizer": {"steps": steps}}}
        document = {"training": training, "sha256": f"{folder.name} {steps}"}
        write_file(folder / "bundle" / "bundle.json", json.dumps(document).encode())
        return SimpleNamespace(returncode=0)

    def measured(bundle, options):
        done.append(f"measure {Path(bundle).parent.name}")
        prefix = {"words": 597, "bits": 8358.0, "psnr": 17.25}
        result = {"image_size": 64, "prefixes": [prefix], "all_layers": {"usage": 0.25, "perplexity": 99.0}}
        if "vqgan" not in bundle:
            accuracy = {"5 words": 0.5, "21 words": 0.625, "raw pixels, centred": 0.3}
            result["few_shot"] = [
                {"ways": ways, "shots": 5, "accuracy": accuracy | {"5 words": 1 / ways}} for ways in (2, 5)
            ]
        return result

    monkeypatch.setattr(baselines, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(baselines, "measured", measured)
    return done


def test_what_is_there_is_not_done_again(work, tmp_path, capsys):
    command = ["--output", str(tmp_path), "--variants", "rq", "vqgan"]
    assert baselines.main([*command[:-1]]) == 0
    assert work == ["train rq 200", "measure rq"]
    assert baselines.main(command) == 0
    assert work == ["train rq 200", "measure rq", "train vqgan 200", "measure vqgan"]
    shown = capsys.readouterr().out.splitlines()[-4:]
    assert shown[0].endswith("| used | perplexity | 5-way 5-shot, 5 / 21 words | training s |")
    assert shown[2].startswith("| rq | 64 | 597 |")
    assert shown[2].endswith("| 25.0% | 99 | 0.200 / 0.625 | 1,234 |")
    assert shown[3].endswith("| – / – | 1,234 |")
    assert (tmp_path / "baselines.md").read_text().splitlines() == shown
    document = json.loads((tmp_path / "baselines.json").read_text())
    assert [result["bundle"] for result in document["results"]] == ["rq", "vqgan"]
    assert "device" in document["machine"]
    # Another number of images is measured anew, another budget trained anew.
    work.clear()
    assert baselines.main([*command[:-1], "--limit", "9"]) == 0
    assert baselines.main([*command[:-1], "--steps", "5"]) == 0
    assert work == ["measure rq", "train rq 5", "measure rq"]


def test_a_failed_training_is_said(work, tmp_path, capsys):
    assert baselines.main(["--output", str(tmp_path), "--variants", "rq", "--steps", "7"]) == 1
    assert "training rq failed" in capsys.readouterr().err


def test_every_variant_of_the_config_is_a_baseline():
    assert {"spae", "rq", "no-pyramid", "no-semantic", "spae8", "vqgan", "v2l", "lqae"} < set(
        baselines.VARIANTS
    )
    assert "tiny" not in baselines.VARIANTS
