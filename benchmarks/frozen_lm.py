"""Tokens/s of the embedded language model: `python -m benchmarks.frozen_lm --output frozen_lm.json`.

Read: 512 tokens that were not seen before, and one token behind them. Write: 32 new tokens of prompt, and 64 behind
them, greedily; alone, and eight texts side by side. Score: the log-probabilities of 512 tokens. Of every program also
how long it loaded and how much memory it had at most.

Peers take turns with ours on the same prompts in the same run, each in a process of its own Python:
`--transformers PYTHON` (with torch and transformers; the same float32 weights), `--llama-cpp PYTHON` (with xllamacpp;
the file's quantised weights and vectors rounded to eight bits, so it computes something slightly different).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.frozen_lm_peer import peak_gb
from benchmarks.peer import Peer
from benchmarks.run import machine
from benchmarks.timing import Result, interleaved, rates, result, table, timed
from spae import frozen_lm
from spae.errors import InputError
from spae.files import write_file
from spae.frozen_lm.blocks import Blocks
from spae.frozen_lm.constraint import TokenSet
from spae.frozen_lm.model_file import smollm2_file
from spae.frozen_lm.weights import HF_BLOCK, HF_NAMES, read_model

READ, PROMPT, WRITE, SIDE_BY_SIDE = 512, 32, 64, 8
SCRIPT = "frozen_lm_peer.py"
LEAST_ID = 100  # below are control tokens


def read_and_write(
    lm: frozen_lm.FrozenLM, repeats: int, peers: dict[str, Peer], load_s: float
) -> dict[str, Result]:
    """Every figure; the prompts are random tokens, new in every call. `load_s`: how long ours took to load."""
    own: dict[str, Any] = {"weights": lm.weights, "load_s": round(load_s, 2)}
    rng = np.random.default_rng(0)
    everything = range(lm.config.vocabulary)
    exactly = TokenSet(everything, WRITE)  # so that no end token ends a text early

    def prompts(count: int, length: int) -> list[list[int]]:
        return rng.integers(LEAST_ID, lm.config.vocabulary, (count, length)).tolist()

    calls: dict[str, Callable[[], Any]] = {
        f"read {READ}": lambda: lm.generate(prompts(1, READ), 1),
        f"write {WRITE}": lambda: lm.generate(prompts(1, PROMPT), WRITE, constraints=[exactly]),
        f"write {SIDE_BY_SIDE} x {WRITE}": lambda: lm.generate(
            prompts(SIDE_BY_SIDE, PROMPT), WRITE, constraints=[exactly] * SIDE_BY_SIDE
        ),
        f"score {READ}": lambda: lm.log_probs(prompts(1, READ)[0]),
    }
    ours = tuple(calls)  # these compile in their first call
    tokens = dict(zip(calls, (READ, WRITE, SIDE_BY_SIDE * WRITE, READ), strict=True))
    facts: dict[str, dict[str, Any]] = {name: own for name in calls}
    for kind, peer in peers.items():
        for name, length, count in ((f"read {READ}", READ, 1), (f"write {WRITE}", PROMPT, WRITE)):
            call = f"{name}, {kind}"
            calls[call] = lambda peer=peer, length=length, count=count: peer.ask(
                prompt=prompts(1, length)[0], count=count
            )
            tokens[call] = tokens[name]
            facts[call] = peer.facts
    first = {name: timed(call) for name, call in calls.items() if name in ours}
    seconds = interleaved(calls, repeats)
    own["peak_gb"] = peak_gb()
    return {
        name: rates(
            result(seconds[name], first=first.get(name), model=lm.name, **facts[name]),
            tokens[name],
            "tokens_per_s",
        )
        for name in calls
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        path = smollm2_file() if options.model == "default" else Path(options.model)
        start = time.perf_counter()
        lm = frozen_lm.load(path)
        load_s = time.perf_counter() - start
        with ExitStack() as stack:
            peers = {}
            if options.transformers:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                write_folder(path, folder)
                peers["transformers"] = stack.enter_context(
                    closing(Peer(options.transformers, SCRIPT, ["transformers", folder]))
                )
            if options.llama_cpp:
                peers["llama.cpp"] = stack.enter_context(
                    closing(Peer(options.llama_cpp, SCRIPT, ["llama.cpp", path]))
                )
            load = os.getloadavg()[0]
            results = {"frozen_lm": read_and_write(lm, options.repeats, peers, load_s)}
        print(table(results))
        document = {"machine": {**machine(), "load": load}, "results": results}
        write_file(options.output, (json.dumps(document, indent=1) + "\n").encode())
    except (InputError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(f"written to {options.output}")
    return 0


def write_folder(path: Path, folder: Path) -> None:
    """The dequantised weights of a GGUF file of Llama's or Qwen 2's kind for transformers, a file for each tensor."""
    files = read_model(path)
    config = files.config
    classes = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
    if config.architecture not in classes or config.rope_scaling is not None:
        raise InputError("transformers beside ours: wanted a plain Llama or Qwen 2 model")
    top = {ours: theirs for theirs, ours in HF_NAMES.items()}
    block = {ours: theirs for theirs, ours in HF_BLOCK.items()}
    places = {}
    for name, weights in files.tensors.items():
        if name in top:
            theirs = top[name]
        else:
            _, layer, part = name.split(".")
            theirs = f"model.layers.{layer}.{block[part]}"
        array = weights.float32() if isinstance(weights, Blocks) else weights
        places[theirs] = f"{name}.safetensors"
        save_file({theirs: array}, folder / places[theirs], {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    settings = {
        "model_type": config.architecture,
        "architectures": [classes[config.architecture]],
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "tie_word_embeddings": config.tied,
    }
    (folder / "config.json").write_text(json.dumps(settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen_lm", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="where to write")
    parser.add_argument("--model", default="default", metavar="PATH", help="as spae.frozen_lm.load (default)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed calls of each (5)")
    parser.add_argument("--transformers", metavar="PYTHON", help="a Python with torch and transformers")
    parser.add_argument("--llama-cpp", metavar="PYTHON", help="a Python with xllamacpp")
    return parser


if __name__ == "__main__":
    sys.exit(main())
