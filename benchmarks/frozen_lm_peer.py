"""The same model in another program, for `benchmarks.frozen_lm`, run by a Python that has it.

    python frozen_lm_peer.py transformers FOLDER     (torch, transformers; float32 weights of a Hugging Face folder)
    python frozen_lm_peer.py llama.cpp FILE          (xllamacpp; the quantised weights of a GGUF file)

Reads one request a line from standard input, {"prompt": [ids], "count": n}: n more tokens, greedily. Answers
with {"seconds": s, "peak_gb": memory at most so far} each, after a first line that says what it is.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

Write = Callable[[list[int], int], None]


def transformers_peer(folder: str) -> tuple[Write, dict]:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def write(prompt: list[int], count: int) -> None:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            if count == 1:  # no cache is needed: its quickest way
                model(ids, logits_to_keep=1, use_cache=False).logits.argmax(-1)
                return
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=count,
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return write, {"weights": "float32", "threads": torch.get_num_threads(), **versions}


def llama_cpp_peer(file: str) -> tuple[Write, dict]:
    import xllamacpp

    cores = len(os.sched_getaffinity(0))
    settings = xllamacpp.CommonParams()
    settings.model.path = file
    settings.n_ctx, settings.n_parallel, settings.verbosity = 2048, 1, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = cores
    server = xllamacpp.Server(settings)

    def write(prompt: list[int], count: int) -> None:
        answer = server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": count,
                "temperature": 0,
                "cache_prompt": False,
                "ignore_eos": True,
            }
        )
        if answer["usage"]["completion_tokens"] != count:
            raise RuntimeError(f"wanted {count} tokens, got {answer['usage']}")

    return write, {"weights": "as in the file, quantised", "threads": cores}


def peak_gb() -> float:
    """The most memory that this process had, mapped files among it."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def main() -> None:
    # What the libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    kind, path = sys.argv[1:]
    start = time.perf_counter()
    write, facts = {"transformers": transformers_peer, "llama.cpp": llama_cpp_peer}[kind](path)
    load_s = round(time.perf_counter() - start, 2)  # with the libraries
    answers.write(json.dumps(facts | {"load_s": load_s}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        write(request["prompt"], request["count"])
        answers.write(json.dumps({"seconds": time.perf_counter() - start, "peak_gb": peak_gb()}) + "\n")


if __name__ == "__main__":
    main()
