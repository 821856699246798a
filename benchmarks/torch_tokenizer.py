"""The shipped tokenizer in PyTorch, from the same bundle: what ours is timed against, and an independent second opinion
on every word. Needs torch, numpy and safetensors, and nothing of this project.

Knows the architecture of `configs/default64.py --variant cpu` alone: patches, depth-wise blocks, a mapped codebook,
words of meaning by pursuit through EfficientNet-Lite0, apart from the others.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from torch import Tensor, nn

TOP_LABELS = 10


class Norm(nn.GroupNorm):
    def __init__(self, own: dict[str, np.ndarray]):
        super().__init__(32, len(own["bias"]), eps=1e-6)
        self.weight.data, self.bias.data = tensor(own["scale"]), tensor(own["bias"])


def convolution(own: dict[str, np.ndarray], stride: int = 1, groups: int = 1, padding: int = 0) -> nn.Conv2d:
    """Of a kernel (h, w, in, out), (in, out), or depth-wise (h, w, width) with as many groups."""
    kernel = own["kernel"]
    if groups > 1:
        weight = kernel.transpose(2, 0, 1)[:, None]
    else:
        weight = (kernel if kernel.ndim == 4 else kernel[None, None]).transpose(3, 2, 0, 1)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2],
        stride,
        padding,
        groups=groups,
        bias="bias" in own,
    )
    layer.weight.data = tensor(weight)
    if layer.bias is not None:
        layer.bias.data = tensor(own["bias"])
    return layer


class Block(nn.Module):
    def __init__(self, tree: dict):
        super().__init__()
        self.norm = Norm(tree["norm"])
        width = len(tree["norm"]["bias"])
        self.depthwise = convolution(tree["depthwise"], groups=width, padding=1)
        self.widen, self.narrow = convolution(tree["widen"]), convolution(tree["narrow"])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.relu(self.widen(self.depthwise(self.norm(x)))))


class Network(nn.Module):
    """Encoder or decoder: stem, blocks, head, and a linear path beside them. Both have one scale."""

    def __init__(self, tree: dict, *parts: str):
        super().__init__()
        self.stem = convolution(tree["stem"], padding=1)
        trees = {"scale": tree["scales"]["0"], "bottleneck": tree["bottleneck"]}
        self.blocks = nn.Sequential(*[Block(one) for part in parts for one in trees[part].values()])
        self.norm = Norm(tree["norm"])
        self.head = convolution(tree["head"], padding=tree["head"]["kernel"].shape[0] // 2)
        self.skip = convolution(tree["skip"])

    def both(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.head(F.silu(self.norm(self.blocks(self.stem(x))))) + self.skip(beside)


class Encoder(Network):
    """(B, 3, H, W) in [0, 1] to latents."""

    def __init__(self, tree: dict):
        super().__init__(tree, "scale", "bottleneck")

    def forward(self, images: Tensor) -> Tensor:
        return self.both(patches(images, 4), patches(images - 0.5, 4))


class Decoder(Network):
    """Latents to (B, 3, H, W)."""

    def __init__(self, tree: dict):
        super().__init__(tree, "bottleneck", "scale")

    def forward(self, latents: Tensor) -> Tensor:
        return unpatched(self.both(latents, latents), 4)


class TrunkBlock(nn.Module):
    def __init__(self, tree: dict, stride: int):
        super().__init__()
        self.expand = convolution(tree["expand"]) if "expand" in tree else None
        kernel = tree["depthwise"]["kernel"]
        self.kernel, self.stride = kernel.shape[0], stride
        self.depthwise = convolution(tree["depthwise"], stride, groups=kernel.shape[2])
        self.project = convolution(tree["project"])

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(same(y, self.kernel, self.stride))))
        return y + x if y.shape == x.shape and self.stride == 1 else y


class Trunk(nn.Module):
    """EfficientNet-Lite0 and the vectors of its labels: regions of images to unit vectors."""

    STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)

    def __init__(self, tree: dict):
        super().__init__()
        net = tree["classifier"]
        self.stem = convolution({"kernel": net["stem_kernel"], "bias": net["stem_bias"]}, stride=2)
        blocks = [net["blocks"][str(i)] for i in range(len(self.STRIDES))]
        self.blocks = nn.Sequential(*map(TrunkBlock, blocks, self.STRIDES))
        self.head, self.classify = convolution(net["head"]), convolution(net["classify"])
        self.labels = tensor(tree["labels"])

    def forward(self, images: Tensor, sides: list[int]) -> Tensor:
        x = F.relu6(self.stem(same((resized(images, 224) * 255 - 127) / 128, 3, 2)))
        x = F.relu6(self.head(self.blocks(x)))
        pooled = [F.adaptive_avg_pool2d(x, side).flatten(2) for side in sides]
        logits = self.classify(torch.cat(pooled, dim=2)[..., None])[..., 0].transpose(1, 2)
        probability, label = logits.softmax(-1).topk(TOP_LABELS)
        return F.normalize(torch.einsum("brt,brtd->brd", probability, self.labels[label]), dim=-1)


class TorchTokenizer(nn.Module):
    """uint8 images (B, 64, 64, 3), and the same squares as the trunk looks at them (B, S, S, 3), to ids (B, 597); and
    ids to float images in [0, 1] but for overshoot."""

    def __init__(self, bundle: str | Path):
        super().__init__()
        folder = Path(bundle)
        self.config = json.loads((folder / "bundle.json").read_text())["config"]
        tree = nested(load_file(folder / "params.safetensors"))
        words = load_file(folder / "vocabulary.safetensors")
        own = tree["autoencoder"]
        self.encoder, self.decoder = Encoder(own["encoder"]), Decoder(own["decoder"])
        values, scales = words["embeddings.values"], words["embeddings.scales"].astype(np.float32)
        embeddings = (values * scales[..., None]).reshape(len(values), -1)
        matrix, shift = words["views.appearance.matrix"], words["views.appearance.shift"]
        view = (embeddings - shift) @ matrix
        self.view = tensor(view * view.shape[1] ** 0.5)
        self.projection = nn.Linear(view.shape[1], own["projection"]["bias"].size)
        self.projection.weight.data = tensor(own["projection"]["kernel"].T)
        self.projection.bias.data = tensor(own["projection"]["bias"])
        self.trunk = Trunk(tree["trunk"])
        self.pursuit = {name: torch.from_numpy(np.array(value)) for name, value in tree["pursuit"].items()}
        self.pursuit = {
            k: v.float() if v.dtype == torch.float16 else v.long() for k, v in self.pursuit.items()
        }
        self.sides, self.pools = self.config["pyramid"], self.config["pools"]
        self.places = [places(side, self.sides[-1]) for side in self.sides]

    def forward(self, images: Tensor, looked_at: Tensor) -> Tensor:
        painted, _ = self.painting(self.encoder(channels_first(images)), self.projection(self.view))
        return torch.cat([self.meaning(channels_first(looked_at)), painted], dim=1)

    def meaning(self, images: Tensor) -> Tensor:
        """The words of the upper layers, by regional pursuit."""
        own, sides = self.pursuit, self.sides[: len(self.pools)]
        target = self.trunk(images, sides) - own["image_mean"]
        small = resized(images, self.config["image_size"])
        colours = torch.einsum("bphw,pc->bchw", patches(small - 0.5, 4), own["patch_kernel"])
        colours = colours + own["patch_bias"][:, None, None]
        free = torch.ones(len(images), len(own["ids"]), dtype=torch.bool)
        layers: list[Tensor] = []
        start = 0
        for side, pool in zip(sides, self.pools, strict=True):
            above = torch.zeros(len(target), side**2, target.shape[2])
            for words in self.parents(layers, side):
                above += own["vectors"][words]
            aim = target[:, start : start + side**2]
            square = (
                own["vectors"].square().sum(1)
                + 2 * above @ own["vectors"].T
                + above.square().sum(2, keepdim=True)
            )
            score = (aim @ own["vectors"].T + (above * aim).sum(2, keepdim=True)) * square.clamp_min(
                1e-12
            ).rsqrt()
            seen = F.adaptive_avg_pool2d(colours, side).flatten(2).transpose(1, 2)
            chosen = []
            for place in range(side**2):
                best_score, best = score[:, place].masked_fill(~free, -torch.inf).topk(pool)
                gap = (own["colours"][best] - seen[:, place, None]).square().sum(2)
                at = best.gather(
                    1, gap.masked_fill(best_score == -torch.inf, torch.inf).argmin(1, keepdim=True)
                )
                free = free & (own["families"] != own["families"][at])
                chosen.append(at)
            layers.append(torch.cat(chosen, dim=1))
            start += side**2
        return own["ids"][torch.cat(layers, dim=1)]

    def parents(self, layers: list[Tensor], side: int) -> list[Tensor]:
        """Of every place of a layer the words above it, layer by layer."""
        i = torch.arange(side**2)
        return [
            words[:, i // side * above // side * above + i % side * above // side]
            for words, above in zip(layers, self.sides, strict=False)
        ]

    def painting(self, latents: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The words of the lower layers by streaming average quantization, and the average of all of them."""
        z = latents.flatten(2).transpose(1, 2)
        total, count, found = torch.zeros_like(z), torch.zeros(z.shape[1]), []
        square = codes.square().sum(1)
        with torch.no_grad():
            for at in self.places[len(self.pools) :]:
                query = z[:, at] * (count[at] + 1)[:, None] - total[:, at]
                flat = query.reshape(-1, codes.shape[1])
                ids = torch.addmm(square, flat, codes.T, alpha=-2).argmin(1).view(query.shape[:2])
                total[:, at] += codes[ids]
                count[at] += 1
                found.append(ids)
        return torch.cat(found, dim=1), total / count.clamp_min(1)[:, None]

    def pictures(self, ids: Tensor) -> Tensor:
        """(B, 597) to (B, 3, 64, 64)."""
        codes = self.projection(self.view)
        total = torch.zeros(len(ids), self.sides[-1] ** 2, codes.shape[1])
        count, first = torch.zeros(total.shape[1]), sum(n**2 for n in self.sides[: len(self.pools)])
        for at in self.places[len(self.pools) :]:
            total[:, at] += codes[ids[:, first : first + len(at)]]
            count[at] += 1
            first += len(at)
        average = (total / count[:, None]).transpose(1, 2).unflatten(2, (self.sides[-1],) * 2)
        return self.decoder(average.contiguous(memory_format=torch.channels_last))

    def losses(self, images: Tensor) -> Tensor:
        """What a training step minimises: squared error, commitment and codebook losses of all layers shown."""
        x = channels_first(images)
        latents, codes = self.encoder(x), self.projection(self.view)
        ids, average = self.painting(latents, codes)
        z = latents.flatten(2).transpose(1, 2)
        through = (z + (average - z).detach()).transpose(1, 2).unflatten(2, latents.shape[2:])
        at = torch.cat(self.places[len(self.pools) :])
        codebook = (z.detach()[:, at] - codes[ids]).square().mean()
        commitment = (z - average.detach()).square().mean()
        return (self.decoder(through) - x).square().mean() + 0.33 * commitment + codebook


def places(side: int, grid: int) -> Tensor:
    """Of a layer on the finest grid, row by row: h' i - ceil(h' / 2) for i = 1 .. h along both axes, h' = grid / h."""
    step = grid // side
    along = step * torch.arange(1, side + 1) - (step + 1) // 2
    return (along[:, None] * grid + along).flatten()


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def channels_first(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W) in [0, 1]; in memory the channels stay last."""
    return (images.permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)


def resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


def nested(tensors: dict[str, np.ndarray]) -> dict:
    """Dotted names to dictionaries of dictionaries, numbers in order."""
    tree: dict = {}
    for name, value in tensors.items():
        *folders, leaf = name.split(".")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[leaf] = value
    return tree


def patches(images: Tensor, patch: int) -> Tensor:
    """(B, 3, H, W) to (B, patch * patch * 3, H / patch, W / patch), rows of a patch first, colours last."""
    b, c, h, w = images.shape
    x = images.reshape(b, c, h // patch, patch, w // patch, patch).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(b, -1, h // patch, w // patch).contiguous(memory_format=torch.channels_last)


def unpatched(x: Tensor, patch: int) -> Tensor:
    b, p, h, w = x.shape
    x = x.reshape(b, patch, patch, p // patch**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(b, -1, h * patch, w * patch)


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "SAME" padding: the odd pixel goes to the end."""
    total = max((math.ceil(x.shape[-1] / stride) - 1) * stride + kernel - x.shape[-1], 0)
    return F.pad(x, (total // 2, total - total // 2) * 2)
