"""Runs the service until it is told to stop."""

import gc
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from spae.errors import InputError
from spae.service.app import create_app
from spae.service.settings import Settings
from spae.service.telemetry import log_to_stderr

_BACKLOG = 1024


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight (no longer than the timeout of a request).

    Its address is printed once it takes requests; logs go to stderr.

    Raises:
        InputError: the address is taken or not this machine's, or as `create_app`.
        BundleError: the bundle is not there or damaged.
    """
    log_to_stderr()
    app = create_app(settings)
    # Why it did not start is told in one line below; the server would put a traceback before it.
    logging.getLogger("uvicorn.error").addFilter(lambda record: app.state.failure is None)
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(settings.timeout_s) or 1,
        ),
        url,
    )
    # The server raises the signal that stopped it once more when it is done: to be told to stop is no failure.
    signal.signal(signal.SIGTERM, _stopped)
    try:
        with listening:
            server.run(sockets=[listening])
    except SystemExit:
        # The server ends so when the application did not start, which told why.
        if app.state.failure is not None:
            raise app.state.failure from None
        raise


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, url: str):
        super().__init__(config)
        self.url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # What has been loaded stays: looking through it for garbage would hold up every request for a while.
            gc.collect()
            gc.freeze()
            print(f"spae: ready at {self.url} (what it can do: {self.url}/docs)", flush=True)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot listen on {settings.host} port {settings.port}: {reason}; choose another --host or --port"
        ) from error


def _stopped(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)
