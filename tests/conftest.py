"""Shared fixtures: where real photographs are, a CPU split into several devices; hypothesis without a clock."""

import atexit
import contextlib
import ctypes
import gc
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

# Several fake devices, so that data parallelism is tested everywhere; set before JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Nearly all that is compiled here runs once, on little: what optimising it takes, running it never gives back.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# XLA's newer emitters of loops take half as long again to compile, small functions and large ones.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# What is kept from one process to the next lies here, and not where the user's lies. Whatever is compiled is compiled
# once for all tests, pytest's workers and the processes that tests start: reading it back takes a third of the time.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="spae-tests-")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
    os.environ["SPAE_CACHE"] = CACHE
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{CACHE}/xla"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Tracing makes and drops millions of small objects; Python's collector looks through all that are there for each 700 of
# them. Seldom it finds as much, for a tenth less of the time.
gc.set_threshold(50_000, 20, 50)

# No test judges how long something takes: any machine stalls now and then.
settings.register_profile("spae", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spae")

ROOT = Path(__file__).resolve().parents[1]
GROWTH = 2**30  # bytes that a process may take for compiled functions; `make test` runs two side by side
CLEARED = pytest.StashKey[int]()  # what it still had after they were dropped


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the project (`SPAE_DATA`, else `../shared/data`)."""
    folder = Path(os.environ.get("SPAE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SPAE_DATA to a folder with tiny-imagenet-64/ and mnist/")
    return folder


@pytest.fixture(scope="session")
def llama_cpp() -> Iterator[str]:
    """The base URL (with /v1) of llama.cpp's own server with SmolLM2-135M."""
    from spae.errors import InputError
    from spae.frozen_lm.model_file import smollm2_file

    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("no llama.cpp: pip install 'spae[bench]' brings its server in a wheel (xllamacpp)")
    try:
        command = [sys.executable, str(Path(__file__).with_name("llama_cpp_server.py")), str(smollm2_file())]
    except InputError as error:
        pytest.skip(str(error))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert url, f"llama.cpp's server did not start; run it by hand: {command}"
        yield f"{url}/v1"
        server.stdin.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Training first: its files are the longest, so that two processes end at about the same time, and its tests start
    processes of their own, which find more memory free while pytest's have not grown yet."""
    items.sort(key=lambda item: "tokenizer_train" not in item.path.parts)


@pytest.hookimpl(trylast=True)  # after the file's fixtures are gone
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """JAX keeps every compiled function, some with a model's weights in them. Where files of tests have let the process
    grow they go, and are read again from disk; after every file would cost minutes."""
    left = nextitem is None or nextitem.path != item.path
    if left and "jax" in sys.modules and _memory() > item.config.stash.get(CLEARED, 0) + GROWTH:
        sys.modules["jax"].clear_caches()
        gc.collect()
        with contextlib.suppress(
            AttributeError, OSError
        ):  # of the GNU C library, which else keeps what was freed
            ctypes.CDLL(None).malloc_trim(0)
        item.config.stash[CLEARED] = _memory()


def _memory() -> int:
    return psutil.Process().memory_info().rss


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """inspect-ai sets the level of the root logger, and `spae serve` its handlers: no test sees another's."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(scope="session", autouse=True)
def inspect_trace(tmp_path_factory) -> Path:
    """Where inspect-ai writes what it does. It opens the file once in a process, so this comes before every test."""
    file = tmp_path_factory.mktemp("trace") / "trace.log"
    os.environ["INSPECT_TRACE_FILE"] = str(file)
    return file
