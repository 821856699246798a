"""Golden values of LPIPS, from the authors' own code over random weights.

    python tests/golden/make_lpips.py        (needs torch and the package lpips 0.1.4)

Writes lpips.json: the distances of the pairs of make_stlpips.py. The weights are drawn here, so that no
file of them is needed; the layers of AlexNet and VGG16 are written out, because lpips takes them from torchvision.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np

# Numbers are widths, "M" is a maximum of stride 2, in the order of torchvision's `features`.
VGG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
ALEX_SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
HEADS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


def shapes(variant: str) -> dict[int, tuple[int, int, int]]:
    """Number among the features -> (width out, width in, kernel side)."""
    if variant == "alex":
        return ALEX_SHAPES
    found, number, before = {}, 0, 3
    for width in VGG:
        if isinstance(width, int):
            found[number] = (width, before, 3)
            before = width
        number += 2 if isinstance(width, int) else 1
    return found


def weights(variant: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random tensors of the network and of the heads, in their published names."""
    generator = np.random.default_rng(len(variant))
    network = {}
    for number, (out, before, side) in shapes(variant).items():
        deviation = (2 / (before * side * side)) ** 0.5
        kernel = generator.normal(0, deviation, (out, before, side, side))
        network[f"features.{number}.weight"] = kernel.astype(np.float32)
        network[f"features.{number}.bias"] = generator.normal(0, 0.1, out).astype(np.float32)
    heads = {
        f"lin{number}.model.1.weight": generator.uniform(0, 1, (1, width, 1, 1)).astype(np.float32)
        for number, width in enumerate(HEADS[variant])
    }
    return network, heads


def main() -> None:
    import torch
    from make_stlpips import pair
    from torch import nn

    def alexnet(**_):
        layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        layers += [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)]
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    def vgg16(**_):
        layers, before = [], 3
        for width in VGG:
            if width == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    models = types.SimpleNamespace(alexnet=alexnet, vgg16=vgg16)
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision"].models = models
    sys.modules["lpips.trainer"] = types.ModuleType("trainer")  # for training, with imports of its own
    import lpips

    golden: dict[str, dict[str, float]] = {}
    for variant in HEADS:
        model = lpips.LPIPS(net=variant, pretrained=False, pnet_rand=True, verbose=False)
        network, heads = weights(variant)
        state = {name: torch.tensor(value) for name, value in {**network, **heads}.items()}
        for number in range(1, 6):
            stage = getattr(model.net, f"slice{number}")
            for name, _ in list(stage.named_parameters()):
                state[f"net.slice{number}.{name}"] = state.pop(f"features.{name}")
        for number in range(5):  # lpips lists its heads a second time
            state[f"lins.{number}.model.1.weight"] = state[f"lin{number}.model.1.weight"]
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected, unexpected
        assert set(missing) == {"scaling_layer.shift", "scaling_layer.scale"}, missing
        golden[variant] = {}
        for size in (64, 97):
            first, second = (torch.tensor(image.transpose(2, 0, 1)[None]) for image in pair(size, seed=size))
            with torch.no_grad():
                golden[variant][str(size)] = float(model(first, second, normalize=True))
    Path(__file__).with_name("lpips.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
