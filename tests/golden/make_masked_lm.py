"""Golden values of transformer blocks and masked language models: `python tests/golden/make_masked_lm.py`.

Needs torch, transformers and tokenizers. Writes transformer.npz (nn.TransformerEncoderLayer, layer norms first and
last) and masked_lm/bert and masked_lm/roberta: tiny random models as Hugging Face folders, with golden.npz beside.
"""

import json
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

OUTPUT = Path(__file__).parent
WORDS = [
    "dog",
    "cat",
    "park",
    "grass",
    "river",
    "stone",
    "window",
    "garden",
    "forest",
    "silver",
    "copper",
    "engine",
    "winter",
    "summer",
    "bottle",
    "castle",
]
TEXT = [f"{word} {word} {other}" for word in WORDS for other in WORDS]
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}


def wordpiece() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=140, special_tokens=special))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_level() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([f" {line}" for line in TEXT], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def model(name: str, config: transformers.PretrainedConfig, tokenizer: tokenizers.Tokenizer) -> None:
    folder = OUTPUT / "masked_lm" / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(len(name))
    network = transformers.AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            # Large enough that a mistake anywhere shows in the logits.
            parameter.normal_(0, 0.25)
            if "norm.weight" in key.lower():
                parameter += 1
            parameter.copy_(parameter.half().float())  # exact in the files below
    vectors = torch.randn(2, 20, 32).requires_grad_()
    targets = torch.randint(5, config.vocab_size, (2, 20))
    result = network(inputs_embeds=vectors, output_hidden_states=True)
    loss = torch.nn.functional.cross_entropy(result.logits.flatten(0, 1), targets.flatten())
    loss.backward()
    np.savez(
        folder / "golden.npz",
        vectors=vectors.detach().numpy(),
        targets=targets.numpy(),
        states=result.hidden_states[-1].detach().numpy(),
        logits=result.logits.detach().numpy(),
        gradient=vectors.grad.numpy(),
    )
    network.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("transformers_version")
    (folder / "config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def blocks() -> None:
    arrays = {}
    for name, first in (("first", True), ("last", False)):
        torch.manual_seed(1)
        layer = torch.nn.TransformerEncoderLayer(
            16, 4, 24, dropout=0, activation="gelu", batch_first=True, norm_first=first
        )
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter += 0.2 * torch.randn(parameter.shape)
        x = torch.randn(2, 7, 16)
        arrays |= {f"{name}.{key}": value.numpy() for key, value in layer.state_dict().items()}
        arrays |= {f"{name}.x": x.numpy(), f"{name}.y": layer(x).detach().numpy()}
    np.savez(OUTPUT / "transformer.npz", **arrays)


def main() -> None:
    blocks()
    words, bytes_ = wordpiece(), byte_level()
    model("bert", transformers.BertConfig(**COMMON, vocab_size=words.get_vocab_size()), words)
    roberta = transformers.RobertaConfig(
        **COMMON, vocab_size=bytes_.get_vocab_size(), type_vocab_size=1, pad_token_id=1
    )
    model("roberta", roberta, bytes_)


if __name__ == "__main__":
    main()
