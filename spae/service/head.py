"""HEAD wherever GET works."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """ASGI middleware: a HEAD request is answered as GET would be, without the body. The document of the interface
    lists GET alone, and load balancers and clients may ask either."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            # The server knows by the method that no body follows the length, and the log tells what was asked.
            scope["method"] = "HEAD"
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        scope["method"] = "GET"  # in place, since the router notes in the same scope which route it was
        try:
            await self.app(scope, receive, answer)
        finally:
            scope["method"] = "HEAD"
