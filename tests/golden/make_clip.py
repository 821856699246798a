"""Golden values of CLIP, by PyTorch, transformers and tokenizers: `python tests/golden/make_clip.py`.

Writes the folders clip_hugging_face/ and clip_openai/ beside itself: random small weights as published models
lay them out, with their config and tokenizer files, and golden.npz with what the originals make of TEXTS and
images(). The OpenAI-style model is written here from the paper, with PyTorch's own attention.
"""

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import tokenizers
import torch
import torch.nn.functional as F
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import CLIPConfig, CLIPModel

HERE = Path(__file__).parent
MERGES = [
    "o g</w>",
    "d og</w>",
    "p h",
    "o t",
    "ph ot",
    "phot o</w>",
    "t h",
    "th e</w>",
    "i s</w>",
    "c a",
    "Ã ©</w>",
]
TEXTS = [
    "a photo of a dog.",
    "The   DOG isn't\tthe cat's: 1984, café!?",
    "naïve 🙂 photo №5 __init__",
    "dog " * 40,
    "",
]
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
WIDTH, LAYERS, HEADS, INNER, OUT = 32, 2, 4, 64, 24
SIDE, PATCH, CONTEXT = 32, 8, 20
SIDES = (2, 3, 4)  # of the grids of regions; 3 does not divide the 4 x 4 patches


def images() -> np.ndarray:
    """Two images, float32 (2, 32, 32, 3) in [0, 1]; the test builds the same."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1.0)
    first = np.stack([x, y, 0.5 + 0.5 * np.sin(12 * x * y)], -1)
    second = np.stack([0.5 + 0.5 * np.cos(30 * x), y**2, 1 - x], -1)
    return np.stack([first, second]).astype(np.float32)


def pixels() -> torch.Tensor:
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    scaled = (images() - np.float32(mean)) / np.float32(deviation)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2))


def tokenizer() -> tokenizers.Tokenizer:
    ranges = [range(33, 127), range(161, 173), range(174, 256)]
    letters = [chr(b) for r in ranges for b in r] + [chr(256 + n) for n in range(68)]
    merges = [tuple(line.split()) for line in MERGES]
    symbols = [*letters, *(x + "</w>" for x in letters), *(a + b for a, b in merges)]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    bpe = models.BPE(ids, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    made = tokenizers.Tokenizer(bpe)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    made.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    ends = [(s, ids[s]) for s in ("<|endoftext|>", "<|startoftext|>")]
    made.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False, trim_offsets=False)
    made.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    made.enable_truncation(CONTEXT)
    return made


def padded(made: tokenizers.Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    end = made.token_to_id("<|endoftext|>")
    ids = np.full((len(TEXTS), CONTEXT), end)
    for row, text in enumerate(TEXTS):
        encoded = made.encode(text).ids
        ids[row, : len(encoded)] = encoded
    return ids, (ids == end).argmax(1)


class OpenAIBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(WIDTH, INNER))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(INNER, WIDTH))

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.resblocks = nn.ModuleList([OpenAIBlock() for _ in range(LAYERS)])

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Transformer()
        self.proj = nn.Parameter(torch.randn(WIDTH, OUT))

    def embed(self, x):
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_pre(x)

    def forward(self, x):
        return self.ln_post(self.transformer(self.embed(x))[:, 0]) @ self.proj

    def dense(self, x):
        x = self.embed(x)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            x = block(x)
        weight, bias = (p.chunk(3)[2] for p in (last.attn.in_proj_weight, last.attn.in_proj_bias))
        values = last.attn.out_proj(F.linear(last.ln_1(x[:, 1:]), weight, bias))
        return self.ln_post(values) @ self.proj


class OpenAIClip(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.visual, self.transformer = Visual(), Transformer()
        self.token_embedding = nn.Embedding(vocabulary, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(CONTEXT, WIDTH))
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, OUT))
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def encode_text(self, ids, ends):
        mask = torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1)
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding, mask)
        return self.ln_final(x)[torch.arange(len(x)), ends] @ self.text_projection


def dense(model: CLIPModel) -> torch.Tensor:
    vision = model.vision_model
    states = vision(pixel_values=pixels(), output_hidden_states=True).hidden_states
    last = vision.encoder.layers[-1]
    values = last.self_attn.out_proj(last.self_attn.v_proj(last.layer_norm1(states[-2][:, 1:])))
    return model.visual_projection(vision.post_layernorm(values))


def regions(whole: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Unit vectors of the whole image and of the regions of SIDES; PyTorch's adaptive pooling has the same cells."""
    map_bchw = dense.transpose(1, 2).unflatten(2, (SIDE // PATCH, SIDE // PATCH))
    pooled = [F.adaptive_avg_pool2d(map_bchw, side).flatten(2).transpose(1, 2) for side in SIDES]
    vectors = torch.cat([whole[:, None], *pooled], 1)
    return vectors / vectors.norm(dim=2, keepdim=True)


def unsettle(model: nn.Module) -> None:
    """Gains and biases away from 1 and 0, so that a forgotten one shows; three digits keep files small."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in model.named_parameters():
        if name.endswith("bias") or "norm" in name or "ln_" in name:
            tensor.data += 0.2 * torch.randn(tensor.shape, generator=generator)
        tensor.data = tensor.data.half().float()


def save(folder: Path, model: nn.Module, **golden) -> None:
    folder.mkdir(exist_ok=True)
    tensors = {name: t.half().contiguous() for name, t in model.state_dict().items() if t.is_floating_point()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    np.savez(folder / "golden.npz", **{name: np.asarray(value) for name, value in golden.items()})


def main() -> None:
    torch.manual_seed(0)
    made = tokenizer()
    ids, ends = padded(made)
    side = {"hidden_size": WIDTH, "intermediate_size": INNER}
    side |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    words = {"vocab_size": made.get_vocab_size(), "max_position_embeddings": CONTEXT, "pad_token_id": 0}
    words |= {"bos_token_id": int(ids[0, 0]), "eos_token_id": int(ids[0, ends[0]])}
    picture = {"image_size": SIDE, "patch_size": PATCH}
    config = CLIPConfig(text_config=side | words, vision_config=side | picture, projection_dim=OUT)
    model = CLIPModel(config).eval()
    unsettle(model)
    out = model(input_ids=torch.from_numpy(ids), pixel_values=pixels())
    folder = HERE / "clip_hugging_face"
    seen = regions(out.image_embeds, dense(model))
    save(folder, model, images=out.image_embeds, regions=seen, texts=out.text_embeds, ids=ids, ends=ends)
    made.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "config.json").write_text(json.dumps({"vision_config": side, "text_config": side}))

    model = OpenAIClip(made.get_vocab_size()).eval()
    unsettle(model)
    pictures, texts = model.visual(pixels()), model.encode_text(torch.from_numpy(ids), torch.from_numpy(ends))
    pictures, texts = (v / v.norm(dim=1, keepdim=True) for v in (pictures, texts))
    folder = HERE / "clip_openai"
    seen = regions(pictures, model.visual.dense(pixels()))
    save(folder, model, images=pictures, regions=seen, texts=texts, ids=ids, ends=ends)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    cfg = {"vision_cfg": {"width": WIDTH, "head_width": WIDTH // HEADS}, "text_cfg": {"heads": HEADS}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))


if __name__ == "__main__":
    with torch.no_grad():
        main()
