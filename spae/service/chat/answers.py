"""A language model's answers with the pictures in them: whole replies, and streams of chunks."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from spae.service.marks import Event, Picture, Piece, Splitter, split

Draw = Callable[[Picture], Awaitable[tuple[dict[str, Any] | None, dict[str, Any]]]]


async def complete(reply: Mapping[str, Any], draw: Draw) -> dict[str, Any]:
    """A reply of OpenAI's shape, every message with its pictures beside its text; see `chat_text`."""
    choices = reply.get("choices")
    if not isinstance(choices, list):
        return dict(reply)
    return {**reply, "choices": [await _complete_choice(choice, draw) for choice in choices]}


async def relay(chunks: AsyncIterator[Mapping[str, Any]], draw: Draw) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed reply, and one more for each picture as soon as its words are complete.

    Text goes on at once, except what may be the beginning of a mark, so that every mark is whole within one chunk.
    A picture's chunk has an empty `content`, and `images` and `spae` like a whole message.
    """
    splitters: dict[int, Splitter] = {}
    last: Mapping[str, Any] = {}
    async for chunk in chunks:
        choices = chunk.get("choices")
        if (
            not isinstance(choices, list)
            or not all(isinstance(one, Mapping) for one in choices)
            or not choices
        ):
            yield dict(chunk)  # the usage, or an error
            continue
        last = {key: value for key, value in chunk.items() if key != "usage"}
        outgoing = [one for choice in choices for one in await _split_choice(choice, splitters, draw)]
        for one in outgoing[:-1]:
            yield {**last, "choices": [one]}
        yield {**chunk, "choices": outgoing[-1:]}
    for index, splitter in splitters.items():
        # An upstream that gave no reason for its end.
        for delta in await _deltas(splitter.finish(), draw):
            yield {**last, "choices": [{"index": index, "delta": delta, "finish_reason": None}]}


async def _complete_choice(choice: Any, draw: Draw) -> Any:
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        return choice
    drawn = [await draw(event) for event in split([message["content"]]) if isinstance(event, Picture)]
    return {**choice, "message": {**message, **_images(drawn)}}


async def _split_choice(
    choice: Mapping[str, Any], splitters: dict[int, Splitter], draw: Draw
) -> list[dict[str, Any]]:
    """One or more choices in the place of one: its text, pictures, and its end with the last."""
    index = choice.get("index")
    index = index if isinstance(index, int) else 0
    delta = choice.get("delta")
    delta = dict(delta) if isinstance(delta, Mapping) else {}
    events: list[Event] = []
    if isinstance(delta.get("content"), str):
        splitter = splitters.setdefault(index, Splitter())
        events += splitter.feed(delta["content"])
        delta["content"] = ""
    if choice.get("finish_reason") is not None and index in splitters:
        events += splitters.pop(index).finish()
    first, *others = await _deltas(events, draw) or [{}]
    deltas = [{**delta, **first}, *others]
    outgoing = [{"index": index, "delta": one, "finish_reason": None} for one in deltas]
    # What else the choice has: log-probabilities at its beginning, the reason of its end at its end.
    outgoing[0] = {**choice, **outgoing[0]}
    outgoing[-1] = {**outgoing[-1], "finish_reason": choice.get("finish_reason")}
    return outgoing


async def _deltas(events: Sequence[Event], draw: Draw) -> list[dict[str, Any]]:
    """Text between pictures as one delta, each picture as another."""
    deltas: list[dict[str, Any]] = []
    text = ""
    for event in events:
        if isinstance(event, Piece):
            text += event.text
            continue
        if text:
            deltas.append({"content": text})
        text = ""
        deltas.append({"content": "", **_images([await draw(event)])})
    return deltas + ([{"content": text}] if text else [])


def _images(drawn: Sequence[tuple[dict[str, Any] | None, dict[str, Any]]]) -> dict[str, Any]:
    """The fields of a message with pictures; none for a message without."""
    if not drawn:
        return {}
    return {
        "images": [part for part, _ in drawn if part is not None],
        "spae": {"images": [report for _, report in drawn]},
    }
