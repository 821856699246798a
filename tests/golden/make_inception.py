"""Golden values of the Inception network of FID, from torch-fidelity's own module over random weights.

    python tests/golden/make_inception.py        (needs torch and the package torch-fidelity 0.4.0)

Writes inception.npz: the shapes of the state dict, which `weights` draws anew, and features and logits (every
STEPth of them) of `images`.
"""

import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

FEATURE_STEP, LOGIT_STEP = 16, 8


def images() -> list[np.ndarray]:
    """Pairs of uint8 images (2, H, W, 3): one smaller than the network's 299 pixels, one larger and no square."""
    pairs = []
    for height, width in ((64, 64), (310, 420)):
        y, x = np.mgrid[:height, :width] / 64.0
        first = np.stack([np.sin(9 * x), 2 * y - 1, np.cos(20 * x * y)], -1)
        second = np.stack([np.sin(31 * x + y), np.cos(5 * y), np.sign(np.sin(12 * (x + y)))], -1)
        pairs.append((127.5 + 127.5 * np.clip(np.stack([first, second]), -1, 1)).astype(np.uint8))
    return pairs


def weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Random tensors that keep the size of activations, for names and shapes in the given order."""
    generator = np.random.default_rng(0)
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.zeros(shape, np.int64)
        elif name.endswith(("bn.weight", "bn.running_var")):
            tensors[name] = generator.uniform(0.5, 1.5, shape).astype(np.float32)
        elif name.endswith(("bn.bias", "bn.running_mean")):
            tensors[name] = generator.uniform(-0.3, 0.3, shape).astype(np.float32)
        else:
            # Uniform: a third of the time of normal values for these 24 million.
            width = (6 / max(np.prod(shape[1:]), 1)) ** 0.5
            tensors[name] = generator.uniform(-width, width, shape).astype(np.float32)
    return tensors


def main() -> None:
    import torch

    # The package's own __init__ imports torchvision, which this module of it does not need.
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(importlib.util.find_spec("torch_fidelity").submodule_search_locations)
    sys.modules["torch_fidelity"] = package
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    def load(file):
        return FeatureExtractorInceptionV3("golden", ["2048", "logits_unbiased"], str(file))

    # The module loads a file when it is made; its shapes are known only afterwards.
    original, torch.nn.Module.load_state_dict = torch.nn.Module.load_state_dict, lambda *_: None
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({}, file.name)
        model = load(file.name)
    torch.nn.Module.load_state_dict = original
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.tensor(value) for name, value in weights(shapes).items()})
    arrays = {"shapes": np.array(json.dumps(shapes))}
    for number, pair in enumerate(images()):
        with torch.no_grad():
            features, logits = model(torch.tensor(pair.transpose(0, 3, 1, 2).copy()))
        arrays[f"features{number}"] = features.numpy()[:, ::FEATURE_STEP]
        arrays[f"logits{number}"] = logits.numpy()[:, ::LOGIT_STEP]
    np.savez_compressed(Path(__file__).with_name("inception.npz"), **arrays)


if __name__ == "__main__":
    main()
