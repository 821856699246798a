"""The calls of a sample as one call of inspect-ai's, for the provider that takes them so.

What inspect-ai does for every call (an event, its copies, its place in the log) takes a millisecond of processor time,
ten times what it takes to put a request. So the calls travel together in `GenerateConfig(extra_body=..)`, where they
are logged; the provider puts one after the other, and each has an answer of its own: a choice of the output.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.model import ModelOutput

from icl_runner.cells import Call, calls_from_json, calls_to_json
from icl_runner.constraints import KEY

_EACH = "each"  # of the metadata of an output: those of its choices


def takes(model_name: str) -> bool:
    """Whether the model ("provider/name") takes calls together."""
    return model_name.startswith("completions/")


def extra_body(calls: Sequence[Call]) -> dict[str, Any]:
    """What asks for the answers to these calls."""
    return {KEY: calls_to_json(calls)}


def calls_of(body: Mapping[str, Any] | None) -> list[Call] | None:
    """The calls of an extra body; None where it is of one call."""
    content = (body or {}).get(KEY)
    return calls_from_json(content) if isinstance(content, Mapping) and "calls" in content else None


def joined(outputs: Sequence[ModelOutput]) -> ModelOutput:
    """The answers to several calls as one output; each is of one choice."""
    usages = [one.usage for one in outputs if one.usage is not None]
    return ModelOutput(
        model=outputs[0].model,
        choices=[one.choices[0] for one in outputs],
        usage=sum(usages[1:], usages[0]) if usages else None,
        metadata={_EACH: [one.metadata for one in outputs]},
    )


def parted(output: ModelOutput) -> list[ModelOutput]:
    """The answers again, without their usage."""
    each = (output.metadata or {})[_EACH]
    return [
        ModelOutput(model=output.model, choices=[choice], metadata=metadata)
        for choice, metadata in zip(output.choices, each, strict=True)
    ]
