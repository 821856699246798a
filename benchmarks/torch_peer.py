"""The shipped tokenizer and its parts in PyTorch, for `benchmarks.run --torch PYTHON`, run by a Python that has it.

    python torch_peer.py BUNDLE ARRAYS

Needs torch, numpy, safetensors; times faiss and vector-quantize-pytorch too where they are installed. ARRAYS: a
folder with looked_at.npy (uint8 squares as the trunk sees them), images.npy (the same at 64 px) and ids.npy (our words
of them). Reads one request a line from standard input, {"call": name, ..}, and answers each with {"seconds": s};
a first line says what it is, and for which share of the words it agrees.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch_tokenizer import TorchTokenizer

Call = Callable[[], object]


class Calls:
    """What can be asked for, each a function of sizes that gives what is timed."""

    def __init__(self, bundle: str, arrays: Path):
        self.tokenizer = TorchTokenizer(bundle).eval()
        self.looked_at, self.images, self.ids = (
            torch.from_numpy(np.load(arrays / f"{name}.npy")) for name in ("looked_at", "images", "ids")
        )
        self.compiled = torch.compile(self.tokenizer)
        self.compiled_pictures = torch.compile(self.tokenizer.pictures)

    @property
    def agreement(self) -> float:
        with torch.inference_mode():
            return float((self.tokenizer(self.images, self.looked_at) == self.ids).float().mean())

    def encode(self, batch: int, compiled: bool) -> Call:
        images, looked_at = self._first(self.images, batch), self._first(self.looked_at, batch)
        network = self.compiled if compiled else self.tokenizer
        return _inference(lambda: network(images, looked_at).numpy())

    def decode(self, batch: int, compiled: bool) -> Call:
        ids = self._first(self.ids, batch).long()
        network = self.compiled_pictures if compiled else self.tokenizer.pictures
        return _inference(lambda: (network(ids).clamp(0, 1) * 255).round().byte().numpy())

    def train(self, batch: int, compiled: bool) -> Call:
        """A step of Adam with clipped gradients and averaged weights, as ours."""
        parts = torch.nn.ModuleList(
            [self.tokenizer.encoder, self.tokenizer.decoder, self.tokenizer.projection]
        )
        weights = [weight.requires_grad_() for weight in parts.parameters()]
        averages = [weight.detach().clone() for weight in weights]
        optimizer = torch.optim.Adam(weights, lr=1e-5, betas=(0.9, 0.99), fused=True)
        losses = torch.compile(self.tokenizer.losses) if compiled else self.tokenizer.losses
        images = self._first(self.images, batch)

        def step() -> None:
            optimizer.zero_grad()
            losses(images).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            torch._foreach_lerp_(averages, [weight.detach() for weight in weights], 1e-3)

        return step

    def quantize(self, batch: int, compiled: bool) -> Call:
        """The lower layers of the pyramid alone."""
        codes = self.tokenizer.projection(self.tokenizer.view).detach()
        z = torch.from_numpy(np.random.default_rng(0).normal(size=(batch, 16, 16, 16)).astype(np.float32))
        quantize = torch.compile(self.tokenizer.painting) if compiled else self.tokenizer.painting
        return _inference(lambda: quantize(z, codes))

    def residual(self, batch: int) -> Call:
        """vector-quantize-pytorch: three residual layers of all 256 places, with as many codes of the same width."""
        from vector_quantize_pytorch import ResidualVQ

        quantizer = ResidualVQ(dim=16, codebook_size=len(self.tokenizer.view), num_quantizers=3).eval()
        z = torch.from_numpy(np.random.default_rng(0).normal(size=(batch, 256, 16)).astype(np.float32))
        return _inference(lambda: quantizer(z))

    def nearest(self, positions: int, words: int, width: int) -> Call:
        z, e = _vectors(positions, words, width)
        z, e = torch.from_numpy(z), torch.from_numpy(e)
        return _inference(lambda: torch.argmin(torch.addmm((e**2).sum(1), z, e.T, alpha=-2), dim=1))

    def faiss(self, positions: int, words: int, width: int) -> Call:
        import faiss

        z, e = _vectors(positions, words, width)
        index = faiss.IndexFlatL2(width)
        index.add(e)
        return lambda: index.search(z, 1)

    def _first(self, rows: torch.Tensor, batch: int) -> torch.Tensor:
        return rows[torch.arange(batch) % len(rows)]


def _inference(call: Call) -> Call:
    return torch.inference_mode()(call)


def _vectors(positions: int, words: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """As `benchmarks.search` makes them."""
    generator = np.random.default_rng(0)
    return tuple(generator.normal(size=(n, width)).astype(np.float32) for n in (positions, words))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    # What the libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    bundle, arrays = sys.argv[1:]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    calls = Calls(bundle, Path(arrays))
    packages = ("torch", "faiss-cpu", "vector-quantize-pytorch")
    facts = {"threads": torch.get_num_threads(), "same_words": calls.agreement}
    answers.write(json.dumps(facts | {name: _version(name) for name in packages}) + "\n")

    @cache
    def made(request: str) -> Call:
        options = json.loads(request)
        return getattr(calls, options.pop("call"))(**options)

    for line in sys.stdin:
        call = made(line)
        start = time.perf_counter()
        call()
        answers.write(json.dumps({"seconds": time.perf_counter() - start}) + "\n")


if __name__ == "__main__":
    main()
