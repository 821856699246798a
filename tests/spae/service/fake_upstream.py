"""A language model's server that says what a test tells it to, and a way to run applications on a real port."""

import asyncio
import contextlib
import json
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


class FakeUpstream:
    """`answer`: the text, a list of pieces for streams, or a Response that is given as it is.

    `asked`: the body and headers of every request. `pause`: seconds before a whole answer, and between the pieces
    of a stream. `cut`: after so many pieces a stream breaks. `gone`: the client went away.
    """

    def __init__(self):
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/models", self._models),
        ]
        self.app = Starlette(routes=routes)
        self.reset()

    def reset(self):
        self.answer = "fine"
        self.asked = []
        self.pause = 0.0
        self.cut = None
        self.error = None
        self.reason = "stop"
        self.gone = threading.Event()

    async def _models(self, request: Request) -> Response:
        self.asked.append((None, dict(request.headers)))
        if isinstance(self.answer, Response):
            return self.answer
        model = {"id": "words-1", "object": "model", "created": 1, "owned_by": "us"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append((body, dict(request.headers)))
        if not body.get("stream") or isinstance(self.answer, Response):
            try:
                await asyncio.wait_for(request.receive(), self.pause)  # its end
                self.gone.set()
            except TimeoutError:
                pass
        if isinstance(self.answer, Response):
            return self.answer
        pieces = [self.answer] if isinstance(self.answer, str) else self.answer
        head = {"id": "chatcmpl-1", "created": 1, "model": "words-1-exactly"}
        if body.get("stream"):
            return StreamingResponse(self._stream(pieces, head, body), media_type="text/event-stream")
        message = {"role": "assistant", "content": "".join(pieces), "refusal": None}
        choices = [
            {"index": i, "message": message, "finish_reason": self.reason} for i in range(body.get("n", 1))
        ]
        reply = {**head, "object": "chat.completion", "choices": choices, "usage": USAGE}
        return Response(json.dumps(reply), media_type="application/json")  # any text, half letters too

    async def _completions(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append((body, dict(request.headers)))
        if isinstance(self.answer, Response):
            return self.answer
        pieces = [self.answer] if isinstance(self.answer, str) else self.answer
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "words-1-exactly"}

        def reply(text: str, reason: str | None) -> str:
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
            return json.dumps({**head, "choices": [choice]})

        if not body.get("stream"):
            return Response(reply("".join(pieces), self.reason), media_type="application/json")
        events = [*(reply(piece, None) for piece in pieces), reply("", self.reason), "[DONE]"]
        return Response("".join(f"data: {one}\n\n" for one in events), media_type="text/event-stream")

    async def _stream(self, pieces, head, body):
        def event(choices, **more):
            chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
            return f"data: {json.dumps(chunk)}\n\n"

        def choice(delta, reason=None):
            return {"index": 0, "delta": delta, "finish_reason": reason}

        try:
            yield ": hello\n\n"
            yield event([choice({"role": "assistant", "content": ""})])
            for number, piece in enumerate(pieces):
                if number == self.cut:
                    raise ClientDisconnect  # breaks the connection
                await asyncio.sleep(self.pause if number else 0)
                yield event([choice({"content": piece})])
            if self.error is not None:
                yield f"data: {json.dumps(self.error)}\n\n"
                return
            if self.reason is not None:
                yield event([choice({}, self.reason)])
            if (body.get("stream_options") or {}).get("include_usage"):
                yield event([], usage=USAGE)
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.gone.set()
            raise


def text_answer(text: str, status: int, **headers: str) -> Response:
    return PlainTextResponse(text, status, headers=headers)


@contextlib.contextmanager
def running(app):
    """The address of an application on a port of its own, in a thread."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
