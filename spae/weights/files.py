"""Files of weights as users have them: safetensors, or PyTorch's own format."""

import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from spae.errors import InputError
from spae.weights.torch_file import read_torch_file


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """
    Raises:
        InputError: damaged, or no safetensors file.
    """
    try:
        return safetensors.numpy.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"expected a safetensors file, {file} is not one ({error}): download it again"
        ) from error


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` file, or of a PyTorch file of any other name.

    Raises:
        InputError: the file is missing, damaged, or holds anything beyond plain tensors.
    """
    path = Path(path)
    return read_tensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
