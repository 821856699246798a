"""`spae vocab build`: the words of a frozen language model."""

import argparse
import json
from typing import Any

from spae.commands.options import add_command, add_json, add_output, positive
from spae.errors import InputError


def add(commands: Any) -> None:
    vocab = commands.add_parser("vocab", help="vocabularies of frozen language models")
    build = add_command(
        vocab.add_subparsers(metavar="COMMAND", required=True),
        "build",
        "a vocabulary of whole words from a frozen model",
        "spae vocab build --from model.gguf -o vocabulary",
        _build,
    )
    build.add_argument(
        "--from",
        dest="model",
        metavar="MODEL",
        help="a GGUF file, a Hugging Face folder, or a tiktoken encoding's name with --matrix (SmolLM2-135M)",
    )
    add_output(build, "DIR", "the folder to write")
    build.add_argument(
        "--matrix", metavar="FILE", help="embeddings (.npy, .safetensors) of a tiktoken encoding"
    )
    build.add_argument("--min-length", type=positive, default=3, metavar="N", help="letters, at least (3)")
    build.add_argument(
        "--min-zipf", type=float, default=2.5, metavar="X", help="frequency of a word, at least; 0: all (2.5)"
    )
    build.add_argument(
        "--max-size", type=positive, default=16_384, metavar="N", help="words, at most (16384)"
    )
    build.add_argument(
        "--block", metavar="FILE", help="words to leave out, one a line, in any case (none are)"
    )
    build.add_argument(
        "--view",
        choices=("two", "raw", "centred", "normalised", "whitened"),
        default="two",
        help="two: centred for meaning and whitened for appearance; else one for both (two)",
    )
    build.add_argument(
        "--components", type=positive, default=16, metavar="N", help="dimensions of a whitened view (16)"
    )
    build.add_argument(
        "--embed",
        metavar="GUIDANCE",
        help="conse or clip:PATH: give the words that guidance's vectors instead of the model's (view two or raw)",
    )
    add_json(build, "print what was built as JSON")


def _build(options: argparse.Namespace) -> int:
    from spae.vocabulary import build

    if options.output.is_file():
        raise InputError(f"cannot write the folder {options.output}: it is a file")
    vocabulary = build(
        options.model,
        matrix=options.matrix,
        min_length=options.min_length,
        min_zipf=options.min_zipf if options.min_zipf > 0 else None,
        max_size=options.max_size,
        block=options.block,
        view=options.view,
        appearance_components=options.components,
    )
    if options.embed is not None:
        from spae.guidance.choice import load_guidance
        from spae.guidance.embedded import embedded

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
