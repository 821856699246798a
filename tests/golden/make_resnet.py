"""Golden values of ResNet-50's form at small width, from a network written here in PyTorch.

    python tests/golden/make_resnet.py        (needs torch and safetensors)

Writes resnet.safetensors: random weights in torchvision's names, and as `golden.*` the logits of two images
and the distance between those, from `images` below.
"""

from pathlib import Path

import numpy as np

BLOCKS, WIDTH, CLASSES = (2, 1, 1, 1), 4, 10


def images() -> tuple[np.ndarray, np.ndarray]:
    """Two images (1, 48, 64, 3) in [0, 1] that differ in phase and brightness."""
    y, x = np.mgrid[:48, :64] / 48.0
    first = np.stack([0.5 + 0.5 * np.sin(9 * x), y, 0.5 + 0.5 * np.cos(20 * x * y)], -1)
    second = np.stack([0.5 + 0.4 * np.sin(9 * x + 1), 0.8 * y, 0.5 + 0.5 * np.cos(15 * x * y)], -1)
    return first[None].astype(np.float32), second[None].astype(np.float32)


def network(blocks=BLOCKS, width=WIDTH, classes=CLASSES):
    """A bottleneck network with the state dict's names and layout of the usual ResNet-50."""
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, inputs: int, inner: int, stride: int):
            super().__init__()
            outputs = 4 * inner
            self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs)
            self.downsample = None
            if stride > 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            y = torch.relu(self.bn2(self.conv2(y)))
            return torch.relu(self.bn3(self.conv3(y)) + (self.downsample(x) if self.downsample else x))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.pool = nn.MaxPool2d(3, 2, 1)
            inputs = width
            for stage, repeats in enumerate(blocks):
                inner, layers = width * 2**stage, []
                for i in range(repeats):
                    layers.append(Bottleneck(inputs, inner, 2 if stage and not i else 1))
                    inputs = 4 * inner
                setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
            self.fc = nn.Linear(inputs, classes)

        def forward(self, x):
            mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            x = (x - mean[:, None, None]) / deviation[:, None, None]
            x = self.pool(torch.relu(self.bn1(self.conv1(x))))
            for stage in range(len(blocks)):
                x = getattr(self, f"layer{stage + 1}")(x)
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    net = Network().eval()
    for name, value in net.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            if name.endswith(("running_var", "weight")):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                value.normal_(0, 0.3)
        elif name.endswith("weight"):
            # Large enough that the image, not the biases, decides the logits.
            value.normal_(0, (2 / value[0].numel()) ** 0.5)
    return net


def main() -> None:
    import torch
    from safetensors.torch import save_file

    net = network()
    pair = torch.tensor(np.concatenate(images()).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        logits = net(pair)
        large = torch.nn.functional.interpolate(pair, (224, 224), mode="bilinear", align_corners=False)
        distance = ((net(large[:1]) - net(large[1:])) ** 2).mean(1)
    golden = {"golden.logits": logits, "golden.distance": distance}
    save_file({**net.state_dict(), **golden}, Path(__file__).with_name("resnet.safetensors"))


if __name__ == "__main__":
    main()
