"""Shared fixtures: where real photographs are, a CPU split into several devices; hypothesis without a clock."""

import atexit
import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Several fake devices, so that data parallelism is tested everywhere; set before JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What is kept from one process to the next lies here, and not where the user's lies; what took long to compile is
# compiled once for all tests and the processes that they start.
CACHE = tempfile.mkdtemp(prefix="spae-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ["SPAE_CACHE"] = CACHE
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{CACHE}/xla"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# No test judges how long something takes: any machine stalls now and then.
settings.register_profile("spae", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spae")

ROOT = Path(__file__).resolve().parents[1]


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


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """JAX keeps every compiled function with its constants, models among them: gigabytes at the end of all tests. So
    they go between two folders of tests, which share few; after every file would cost minutes."""
    if nextitem is not None and nextitem.path.parent != item.path.parent and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def inspect_trace(tmp_path_factory) -> Path:
    """Where inspect-ai writes what it does. It opens the file once in a process, so this comes before every test."""
    file = tmp_path_factory.mktemp("trace") / "trace.log"
    os.environ["INSPECT_TRACE_FILE"] = str(file)
    return file
