"""The processes of a run end together.

JAX has them wait for one that has failed: for five minutes, and ends them with a page of C++ frames. Here the one that
ends says why in the store of JAX's coordination service, and all others look there once a second.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from jax._src import distributed  # its store has no public door; Orbax comes this way too

from spae.errors import BundleError, InputError

ENDED = "spae/ended/"  # process -> [exit status, line]
INTERVAL = 1.0  # seconds between looks into the store
GRACE = 20.0  # seconds for all to meet, also on a loaded machine; one that was killed will not come

_ending = threading.Lock()  # taken by the thread that ends this process, and never given back


@contextlib.contextmanager
def together() -> Iterator[None]:
    """End this process with the first other one of its run that ends by `leave`; an error in the block ends them all.

    With one process this does nothing. With several an error does not leave the block: it is printed, in one line if
    it is an InputError, BundleError or OSError, and the exit status is 1.
    """
    client = distributed.global_state.client
    if client is None:
        yield
        return
    threading.Thread(target=_watch, args=(client,), daemon=True).start()
    try:
        yield
    except (InputError, BundleError, OSError) as error:
        leave(str(error), 1)
    except BaseException as error:
        traceback.print_exc()
        leave(repr(error), 1)


def leave(line: str, status: int) -> None:
    """Print the line and end all processes of this run, each of which prints it, with an exit status.

    With one process this does nothing. Python's own end would wait for computations of which others had a share.
    """
    if (client := distributed.global_state.client) is not None:
        _ending.acquire()
        # Unless the first process was killed, and the store with it.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            client.key_value_set(f"{ENDED}{jax.process_index()}", json.dumps([status, line]))
        _end(line, status)


def _watch(client: Any) -> None:
    ended: list[tuple[str, str]] = []
    while not ended:
        time.sleep(INTERVAL)
        try:
            ended = client.key_value_dir_get(ENDED)
        except jax.errors.JaxRuntimeError:
            return  # the run is over; or its first process was killed, at which JAX itself ends the others
    _ending.acquire()
    key, value = ended[0]
    status, line = json.loads(value)
    _end(f"process {key.removeprefix(ENDED)} has ended: {line}", status)


def _end(line: str, status: int) -> NoReturn:
    with contextlib.suppress(OSError):  # a full disk may be the log's, too
        print(f"spae-train: {line}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    # Nobody goes before all are here: to those who are left, JAX would say that a process has crashed.
    meeting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    meeting.start()
    meeting.join(GRACE)
    os._exit(status)
