"""One process of a run, for the tests of several: trains as asked and writes down what was logged.

    python one_process.py JOBS.json PROCESS

The jobs: `processes`, `coordinator`, `results` (a file name without its ending) and `runs`, each with its `name`,
whether it `validates` (at its end, as every run does), and the fields of its config.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from conftest import CONFIGS, HashGuidance, shared_step

from tokenizer_train import guidance, loop, preparation
from tokenizer_train.config import Config
from tokenizer_train.config_file import load_config
from tokenizer_train.preparation import Prepared
from tokenizer_train.summaries import Summaries


def config_of(fields: dict[str, dict[str, Any]]) -> Config:
    """default64's tiny variant with the given fields of its sections."""
    config = load_config(CONFIGS / "default64.py", "tiny")
    sections = {name: dataclasses.replace(getattr(config, name), **values) for name, values in fields.items()}
    return dataclasses.replace(config, **sections)


def main(jobs: dict[str, Any], process: int) -> None:
    logged: dict[int, dict[str, float]] = {}
    show, validate = Summaries.scalars, Prepared.validate

    def scalars(self, step, values, group):
        show(self, step, values, group)
        if group == "train":
            logged[step] = dict(values)

    Summaries.scalars = scalars  # type: ignore[method-assign]
    guidance.load_guidance = lambda name: HashGuidance()  # type: ignore[assignment, return-value]
    preparation.make_step = shared_step
    many = jobs["processes"] > 1
    own = {"coordinator": jobs["coordinator"], "processes": jobs["processes"], "process": process}
    results = {}
    for run in jobs["runs"]:
        logged.clear()
        config = config_of(run["fields"])
        if many:
            config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **own))

        Prepared.validate = validate if run["validates"] else lambda *arguments: None  # type: ignore[method-assign]
        loop.train(config)
        results[run["name"]] = dict(logged)
        Path(f"{jobs['results']}-{process}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
