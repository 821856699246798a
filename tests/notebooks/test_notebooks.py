"""Every notebook runs from top to bottom in a kernel of this Python."""

from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from traitlets import default

from spae.bundle import find
from spae.errors import BundleError, InputError
from spae.frozen_lm.model_file import smollm2_file

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


class ThisPython(AsyncKernelManager):
    """Starts kernels of the interpreter that runs the tests, whatever kernels are installed."""

    @default("kernel_spec_manager")
    def _no_folders(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def test_there_are_notebooks():
    assert {"decode_tokens.ipynb", "few_shot.ipynb"} <= {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    try:
        find("default")
        if path.stem == "few_shot":
            smollm2_file()
    except (BundleError, InputError) as error:
        pytest.skip(f"the notebooks run with what is shipped: {error}")
    # In a folder of its own, and without windows.
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        kernel_manager_class=ThisPython,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    warned = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not warned


def test_few_shot_has_its_outputs_committed():
    notebook = nbformat.read(next(path for path in NOTEBOOKS if path.stem == "few_shot"), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code)
    table = code[-1].outputs[-1].data["text/markdown"]
    # Both rules, each with its control and its floor, in tables of their own.
    assert table.count("\n| control: words of another image |") == 2
    assert table.count("\n| floor |") == 2
    assert "open-ended exact match" in table
    assert "constrained to the names" in table
