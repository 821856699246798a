"""A language model for services whose conversations are not the point."""

from contextlib import asynccontextmanager


class SilentModel:
    """A language model that has nothing to say."""

    def check(self, body):
        pass

    check_completion = check

    async def chat(self, body, headers, pictures):
        message = {"role": "assistant", "content": ""}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "0", "object": "chat.completion", "created": 0, "model": "silent", "choices": [choice]}

    @asynccontextmanager
    async def stream(self, body, headers, pictures):
        async def chunks():
            delta = {"role": "assistant", "content": ""}
            choice = {"index": 0, "delta": delta, "finish_reason": "stop"}
            yield {
                "id": "0",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "silent",
                "choices": [choice],
            }

        yield chunks()

    async def complete(self, body, headers):
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
        return {"id": "0", "object": "text_completion", "created": 0, "model": "silent", "choices": [choice]}

    @asynccontextmanager
    async def stream_completion(self, body, headers):
        async def chunks():
            choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
            yield {
                "id": "0",
                "object": "text_completion",
                "created": 0,
                "model": "silent",
                "choices": [choice],
            }

        yield chunks()

    async def models(self, headers=None):
        return [{"id": "silent", "object": "model", "created": 0, "owned_by": "nobody"}]

    async def close(self):
        pass
