"""Golden values of the shift-tolerant perceptual distance, from the authors' own PyTorch package.

    python tests/golden/make_stlpips.py        (needs torch and stlpips_pytorch)

Writes stlpips.json: distances for the image pairs below, and a few entries of the gradient.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np

PIXELS = [(0, 0, 0), (10, 20, 1), (31, 32, 2), (63, 63, 0), (40, 5, 1)]


def pair(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images (size, size, 3) in [0, 1]: waves with an edge, and the same shifted, dimmed and noisy."""
    generator = np.random.default_rng(seed)
    y, x = np.indices((size, size)) / size
    waves = [np.sin(6.28 * (f * x + g * y) + p) for f, g, p in generator.uniform(-4, 4, (3, 3))]
    first = 0.5 + 0.3 * np.stack(waves, -1) + 0.2 * (x + y > 1)[..., None]
    second = 0.9 * np.roll(first, 2, axis=1) + generator.normal(0, 0.05, first.shape)
    return np.clip(first, 0, 1).astype(np.float32), np.clip(second, 0, 1).astype(np.float32)


def main() -> None:
    import torch

    # Imported by the package and not used by what runs here.
    for name, attributes in {
        "torchvision": {"models": types.ModuleType("models")},
        "IPython": {"embed": None},
        "torchsummary": {"summary": None},
    }.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(attributes)
    from stlpips_pytorch import stlpips

    golden: dict[str, dict] = {}
    for network in ("alex", "vgg"):
        model = stlpips.LPIPS(net=network, variant="shift_tolerant", verbose=False)
        golden[network] = {"distances": {}}
        for size in (64, 128):
            first, second = (torch.tensor(image.transpose(2, 0, 1)[None]) for image in pair(size, seed=size))
            first.requires_grad_(size == 64)
            distance = model(first, second, normalize=True)
            golden[network]["distances"][str(size)] = float(distance.detach())
            if size == 64:
                distance.sum().backward()
                gradient = first.grad[0].numpy().transpose(1, 2, 0)
                golden[network]["gradient_norm"] = float(np.linalg.norm(gradient))
                golden[network]["gradient"] = [float(gradient[pixel]) for pixel in PIXELS]
    Path(__file__).with_name("stlpips.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
