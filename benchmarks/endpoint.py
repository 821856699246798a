"""How fast `completions` is with 64 calls at a time: `python -m benchmarks.endpoint --output endpoint.json`.

A fake endpoint in a process of its own answers each request after 50 ms, so 64 callers that lose no time get 1,280
answers a second. Measured are the provider alone, beside it inspect's own `openai-api-completions`, then
the provider through inspect's `model.generate`, a whole `eval` of inspect (samples of one call, solver, scorer, log),
and a whole `spae-icl run classify`, whose samples have four calls.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.timing import Result, result, spread
from spae.files import write_file

CALLERS = 64
DELAY_S = 0.05
IDEAL = CALLERS / DELAY_S  # answers a second
# As long as a 2-way 5-shot prompt of five words an image.
PROMPT = "Input: dog park grass animal brown\nOutput: beagle\n###\n" * 10 + "Input: dog park tree\nOutput:"

Call = Callable[[], Awaitable[object]]
Times = tuple[list[float], list[float]]


_CHOICE = {"index": 0, "text": " beagle", "finish_reason": "stop", "logprobs": None}
_USAGE = {"prompt_tokens": 150, "completion_tokens": 1, "total_tokens": 151}
_BODY = json.dumps({"id": "1", "model": "m", "choices": [_CHOICE], "usage": _USAGE}).encode()
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)


class FakeEndpoint(asyncio.Protocol):
    """HTTP/1.1 kept alive, as little of it as the clients need: what it costs is not measured as theirs."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.received = body[length:]
        loop = asyncio.get_running_loop()
        loop.call_later(DELAY_S, self.transport.write, _HEAD + _BODY)


async def serve() -> None:
    """Prints the port, serves until standard input ends, prints the processor seconds that it took."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(FakeEndpoint, "127.0.0.1", 0, backlog=256)
    start = time.process_time()
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    print(time.process_time() - start, flush=True)


@contextmanager
def endpoint(facts: dict[str, Any]) -> Iterator[str]:
    """The base URL of a fake endpoint in a process of its own; its processor seconds go into `facts`."""
    command = [sys.executable, "-m", "benchmarks.endpoint", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
        try:
            yield f"http://127.0.0.1:{int(stdout.readline())}/v1"
        finally:
            stdin.close()
            facts["endpoint_processor_s"] = float(stdout.readline())


async def timed(call: Call, requests: int, repeats: int) -> Times:
    """Of each repeat: seconds, and processor seconds of this process. A first one warms up and does not count."""

    async def caller() -> None:
        for _ in range(requests // CALLERS):
            await call()

    elapsed, processor = [], []
    for _ in range(1 + repeats):
        start, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        elapsed.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return elapsed[1:], processor[1:]


def measure(requests: int, repeats: int) -> dict[str, Result]:
    """Name -> seconds for `requests` requests, answers a second, their share of the ideal, processor time."""
    from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model

    import icl_runner.providers  # noqa: F401, registers the providers

    config = GenerateConfig(max_tokens=5, temperature=0, max_connections=CALLERS)
    messages: list[Any] = [ChatMessageUser(content=PROMPT)]
    results = {}
    facts: dict[str, Any] = {}
    with endpoint(facts) as url:
        model = get_model("completions/m", base_url=url, memoize=False)
        peer = get_model("openai-api-completions/fake/m", base_url=url, api_key="none", memoize=False)
        calls: dict[str, tuple[Any, Call]] = {
            "provider": (model, lambda: model.api.generate(messages, [], "none", config)),
            "inspect's own": (peer, lambda: peer.api.generate(messages, [], "none", config)),
            "model.generate": (model, lambda: model.generate(messages, config=config)),
        }
        for name, (used, call) in calls.items():
            results[name] = _entry(requests, *asyncio.run(_closing(used, timed(call, requests, repeats))))
        # A sample costs inspect some ten milliseconds of processor time, so these are fewer.
        samples = max(CALLERS, requests // 10)
        results["eval"] = _entry(samples, *_evals(model, samples, min(repeats, 3)))
        results["run"] = _entry(4 * samples, *_runs(url, samples, min(repeats, 3)))
    for entry in results.values():
        entry["endpoint_processor_ms"] = 1000 * facts["endpoint_processor_s"] / _asked(results)
    return results


async def _closing(model: Any, times: Awaitable[Times]) -> Times:
    """A model's connections belong to the event loop, and must not outlive it."""
    try:
        return await times
    finally:
        await model.api.aclose()


def _evals(model: Any, requests: int, repeats: int) -> Times:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    task = Task(
        dataset=[Sample(id=i, input=PROMPT, target="beagle") for i in range(requests)],
        solver=generate(),
        scorer=match(),
        config=GenerateConfig(max_tokens=5, temperature=0, max_connections=CALLERS),
    )
    elapsed, processor = [], []
    for _ in range(1 + repeats):
        with tempfile.TemporaryDirectory() as folder:
            start, used = time.perf_counter(), time.process_time()
            options: dict[str, Any] = {"display": "none", "log_realtime": False, "max_samples": CALLERS}
            (log,) = eval(task, model=model, log_dir=folder, **options)
            elapsed.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
        if log.status != "success":
            raise RuntimeError(f"the eval failed: {log.error}")
    return elapsed[1:], processor[1:]


def _runs(url: str, samples: int, repeats: int) -> Times:
    from PIL import Image

    from icl_runner import tasks
    from icl_runner.plan import Plan
    from icl_runner.run import run

    elapsed, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        for place in range(12):
            (Path(folder) / "data" / "abc"[place % 3]).mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (64, 64), (20 * place, 100, 200))
            image.save(Path(folder) / "data" / "abc"[place % 3] / f"{place}.png")
        settings: dict[str, Any] = {"data": f"{folder}/data", "words": "class-name", "count": samples}
        plan = Plan(tasks.find("classify")(model="completions/m", base_url=url, **settings))
        for turn in range(1 + repeats):
            start, used = time.perf_counter(), time.process_time()
            done = run(plan, f"{folder}/{turn}", max_connections=CALLERS)
            elapsed.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
            if not done:
                raise RuntimeError("not every sample of the run has a score")
    return elapsed[1:], processor[1:]


def _entry(requests: int, elapsed: Sequence[float], processor: Sequence[float]) -> Result:
    answers = spread([requests / seconds for seconds in elapsed])
    return {
        **result(elapsed, callers=CALLERS, delay_s=DELAY_S, requests=requests, ideal_per_s=IDEAL),
        "answers_per_s": answers,
        "share_of_ideal": answers["median"] / IDEAL,
        "processor_ms": spread([1000 * seconds / requests for seconds in processor]),
    }


def _asked(results: dict[str, Result]) -> int:
    return sum(entry["requests"] * (entry["warmup"] + entry["repeats"]) for entry in results.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="JSON", help="where to write")
    parser.add_argument(
        "--requests", type=int, default=6400, metavar="N", help="of each repeat (6400); a tenth for evals"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="timed repeats (5; evals: at most 3)"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        asyncio.run(serve())
        return 0
    if options.output is None or options.requests < CALLERS or options.repeats < 1:
        parser.error(f"wanted --output, at least {CALLERS} requests and 1 repeat")
    from benchmarks.run import machine

    results = measure(options.requests // CALLERS * CALLERS, options.repeats)
    document = {"machine": {**machine(), "load": os.getloadavg()}, "results": {"endpoint": results}}
    write_file(options.output, (json.dumps(document, indent=1) + "\n").encode())
    for name, entry in results.items():
        rate, cost = entry["answers_per_s"], entry["processor_ms"]["median"]
        print(
            f"{name:15} {rate['median']:6.0f} answers/s ({rate['min']:.0f} .. {rate['max']:.0f}), "
            f"{100 * entry['share_of_ideal']:.0f} % of {IDEAL:.0f}; {cost:.2f} ms of processor time each, "
            f"the endpoint {entry['endpoint_processor_ms']:.2f} ms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
