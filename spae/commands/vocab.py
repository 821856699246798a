"""`spae vocab build | check`: the words of a frozen language model, and how other models write them."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spae.commands.options import add_command, add_json, add_output, positive
from spae.errors import BundleError, InputError


def add(commands: Any) -> None:
    vocab = commands.add_parser("vocab", help="vocabularies of frozen language models")
    commands = vocab.add_subparsers(metavar="COMMAND", required=True)
    _add_build(commands)
    _add_check(commands)


def _add_build(commands: Any) -> None:
    build = add_command(
        commands,
        "build",
        "a vocabulary of whole words from a frozen model",
        "spae vocab build --from model.gguf -o vocabulary",
        _build,
    )
    build.add_argument(
        "--from",
        dest="model",
        metavar="MODEL",
        help="a GGUF file or a Hugging Face folder, by its path or as hf:ORG/REPO[/FILE], or a tiktoken encoding's "
        "name with --matrix (SmolLM2-135M)",
    )
    add_output(build, "DIR", "the folder to write")
    build.add_argument(
        "--matrix", metavar="FILE", help="embeddings (.npy, .safetensors) of a tiktoken encoding"
    )
    build.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="TOKENIZER",
        help="only words that are one token of these too: a GGUF file, a tokenizer.json or its folder, a .tiktoken "
        "file, a tiktoken encoding's name, or hf:ORG/REPO[/FILE]",
    )
    build.add_argument("--min-length", type=positive, default=3, metavar="N", help="letters, at least (3)")
    build.add_argument(
        "--min-zipf", type=float, default=3.0, metavar="X", help="frequency of a word, at least; 0: all (3)"
    )
    build.add_argument(
        "--max-size", type=positive, default=16_384, metavar="N", help="words, at most (16384)"
    )
    build.add_argument("--block", metavar="FILE", help="further words to leave out, one a line, in any case")
    build.add_argument(
        "--view",
        choices=("two", "raw", "centred", "normalised", "whitened"),
        default="two",
        help="two: centred for meaning and whitened for appearance; else one for both (two)",
    )
    build.add_argument(
        "--components", type=positive, default=64, metavar="N", help="dimensions of a whitened view (64)"
    )
    build.add_argument(
        "--embed",
        metavar="GUIDANCE",
        help="conse, clip:PATH or clip-jax:NAME_OR_PATH: give the words that guidance's vectors instead of the "
        "model's (view two or raw)",
    )
    add_json(build, "print what was built as JSON")


def _add_check(commands: Any) -> None:
    check = add_command(
        commands,
        "check",
        "how many words are one token behind a space, by tokenizer",
        "spae vocab check default --tokenizer cl100k_base o200k_base",
        _check,
    )
    check.add_argument(
        "words", metavar="WORDS", help="a vocabulary's folder, a bundle, or a text file of words, one a line"
    )
    check.add_argument(
        "--tokenizer", nargs="+", required=True, metavar="TOKENIZER", help="as --also of spae vocab build"
    )
    add_json(check, "print the figures as JSON, with the words that are more than one token")


def _build(options: argparse.Namespace) -> int:
    from spae.frozen_lm.build_vocabulary import build
    from spae.vocabulary import refuse_bundle

    if options.output.is_file():
        raise InputError(f"cannot write the folder {options.output}: it is a file")
    refuse_bundle(options.output)
    if math.isnan(options.min_zipf):
        raise InputError("--min-zipf: wanted a frequency, got nan")
    vocabulary = build(
        options.model,
        matrix=options.matrix,
        also=options.also,
        min_length=options.min_length,
        min_zipf=options.min_zipf if options.min_zipf > 0 else None,
        max_size=options.max_size,
        block=options.block,
        view=options.view,
        appearance_components=options.components,
    )
    if options.embed is not None:
        from spae.guidance.choice import load_guidance
        from spae.guidance.meaning_view import embedded

        guidance = load_guidance(options.embed)
        vocabulary = embedded(vocabulary, guidance, options.view, options.components)
    vocabulary.save(options.output)
    if options.json:
        print(json.dumps({"output": str(options.output), **vocabulary.header()}, ensure_ascii=False))
    else:
        for step in vocabulary.provenance["filters"]:
            print(f"{step['left']:>8,}  {step['filter']}")
        print(f"{options.output}: {len(vocabulary):,} words of {vocabulary.width} dimensions")
    return 0


def _check(options: argparse.Namespace) -> int:
    from spae.frozen_lm.tokenizer_file import read_tokenizer
    from spae.frozen_lm.words import single_tokens

    words = _words(options.words)
    found = []
    for name in options.tokenizer:
        file = read_tokenizer(name)
        single = single_tokens(file.tokenizer, words)
        others = [word for word in words if word not in single]
        share = round(len(single) / len(words), 4)
        found.append({**file.provenance, "single": len(single), "share": share, "others": others})
    if options.json:
        print(json.dumps({"words": len(words), "tokenizers": found}, ensure_ascii=False))
    else:
        for each in found:
            print(f"{each['single']:>8,} of {len(words):,}  {each['share']:7.2%}  {each['name']}")
    return 0


def _words(source: str) -> Sequence[str]:
    """The words of a text file, of a vocabulary's folder, or of a bundle."""
    from spae import bundle
    from spae.frozen_lm.words import read_word_list
    from spae.vocabulary import Vocabulary

    if Path(source).is_file():
        return read_word_list(source)[0]
    if (Path(source) / "vocabulary.json").is_file():
        return Vocabulary.load(source).words
    try:
        return bundle.read(source, "tokenizer")[1]["words.json"]
    except BundleError as error:
        raise InputError(f"words: {source!r} is no text file and no vocabulary's folder; {error}") from error
