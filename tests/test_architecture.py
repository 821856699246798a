"""docs/architecture.md is a map that stays true."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAP = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("spae", "tokenizer_train", "icl_runner")
FILES = [file.relative_to(ROOT).as_posix() for package in PACKAGES for file in (ROOT / package).rglob("*.py")]


def test_every_file_that_it_names_exists():
    named = set(re.findall(r"[\w/]+\.py\b", MAP))
    assert len(named) > 40
    assert [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in FILES)] == []


def test_every_folder_is_named():
    folders = {Path(file).parent for file in FILES if file.endswith("/__init__.py")}
    assert len(folders) > 15
    assert [folder for folder in folders if not re.search(rf"(^|[ (/]){folder.name}/", MAP, re.M)] == []
