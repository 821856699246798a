"""The Python of the README runs as it stands, one block after the other."""

import re
import shutil
from pathlib import Path

import pytest

from spae.bundle import find
from spae.demo import PHOTOGRAPHS
from spae.errors import BundleError

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    try:
        find("default")
    except BundleError as error:
        pytest.skip(f"the README uses the shipped bundle: {error}")
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks, "README.md has no block of Python"
    shutil.copy(PHOTOGRAPHS / "cat.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"README.md, block {number}", "exec"), namespace)
