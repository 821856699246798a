"""Cells whose answers are filled into skeletons: each choice is a call of its own, behind what was chosen before."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from icl_runner.cells import Call, TextCell
from icl_runner.detection import records


@dataclass(frozen=True, kw_only=True)
class SkeletonCell(TextCell):
    """A cell of `detect --answers skeleton`."""

    def calls(self) -> Iterable[Call]:
        for item in self.items:
            instruction = records.instruction(item.shown["instruction"])
            skeleton = instruction.skeleton(len(item.shown["scene"]["things"]))
            for call in item.calls:
                written = ""
                for part in skeleton:
                    if isinstance(part, str):
                        written += part
                        continue
                    # A space before a choice belongs to the choice.
                    query = (call.prompt.query + written).removesuffix(" ")
                    prompt = replace(call.prompt, query=query)
                    longest = max(part.texts, key=len)
                    # A token for each sign, for the one behind it and for a space before it.
                    yield replace(call, prompt=prompt, max_tokens=len(longest) + 2)
                    written += longest
