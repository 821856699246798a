"""`spae-icl instruct`: conversations about images, written by a language model that reads captions and boxes."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from icl_runner.options import Count, ModelArguments, ModelName, Switch, option, optional, whole
from icl_runner.settings import MAX_RETRIES, refuse_secrets
from spae.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Instruct:
    """Instruction data as LLaVA's: conversations, descriptions and reasoning; run again, it goes on.

    example: spae-icl instruct tuxpaint --model openai/gpt-4o -o scenes.json
    """

    # tuxpaint or openmoji (scenes composed into a folder beside the output), a folder of COCO, images with captions
    scenes: Annotated[str, tyro.conf.Positional, option("SCENES")]
    model: ModelName  # who writes
    # LLaVA's file; the model's answers are beside it, in FILE.answers
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    # what is written about each image
    kinds: tuple[Literal["conversation", "detail", "reasoning"], ...] = (
        "conversation",
        "detail",
        "reasoning",
    )
    split: Annotated[str | None, optional("NAME")] = None  # of the data
    count: Count = 100  # images
    seed: Annotated[int, option("N")] = 0  # of the choice of images, or of the scenes
    base_url: Annotated[str | None, optional("URL", name="model-base-url")] = None  # of the model's endpoint
    model_args: ModelArguments = field(default_factory=dict)
    # calls at the same time (the provider's own number)
    max_connections: Annotated[int | None, whole(1), optional("N")] = None
    max_retries: Annotated[int, whole(0)] = MAX_RETRIES  # of a failed call
    json: Switch = False  # print the counts as JSON

    def __post_init__(self) -> None:
        refuse_secrets(self.base_url, self.model_args)
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise InputError(f"wanted --kinds once each, at least one; got {' '.join(self.kinds) or 'none'}")
        if self.output.suffix != ".json":
            raise InputError(f"wanted an output file ending .json, got {self.output}")

    def __call__(self) -> int:
        from icl_runner.answer_file import AnswerFile
        from icl_runner.endpoint import ask, calls_failed, load_model
        from icl_runner.instruct.described import open_images
        from icl_runner.instruct.factory import drafts, make
        from spae.conversations import write_conversations

        images = open_images(self.scenes, self.split, self.count, self.seed, self.output.with_suffix(""))
        wanted = drafts(images, self.kinds, self.seed)
        heading = {
            "format": "spae-icl-instruct",
            "model": self.model,
            "base_url": self.base_url,
            "model_args": dict(self.model_args),
        }
        model = load_model(self.model, self.base_url, self.model_args, shared=False)
        with AnswerFile(self.output.with_name(f"{self.output.name}.answers"), heading) as answers:
            failures = ask(
                model,
                [draft.question for draft in wanted],
                answers,
                "conversations",
                max_connections=self.max_connections,
                max_retries=self.max_retries,
            )
            made = make(wanted, answers, failures)
        write_conversations(self.output, made.conversations)
        if self.json:
            counts = {
                kind: {"asked": asked, "left_out": dict(made.left_out.get(kind, {}))}
                for kind, asked in made.asked.items()
            }
            record = {"output": str(self.output), "images": images.name, "written": len(made.conversations)}
            print(json.dumps({**record, "kinds": counts}, ensure_ascii=False))
        else:
            print(
                f"{self.output}: {len(made.conversations):,} about {len(images.ids):,} images of {images.name}"
            )
            for line in made.lines():
                print(line)
        if failures:
            print(f"spae-icl: {calls_failed(failures)}", file=sys.stderr)
        return 1 if failures else 0
