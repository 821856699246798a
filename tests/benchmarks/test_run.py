"""The benchmarks on tiny sizes: every figure that `make bench` promises is in the JSON. No timing is judged."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn

from benchmarks import run, timing
from benchmarks.limits import beside_limits, work
from benchmarks.parts import parts
from benchmarks.quantizer import quantize_words
from benchmarks.run import main
from benchmarks.search import kernels, log_sum_exp_words, nearest_word
from benchmarks.start import cold_and_warm
from benchmarks.timing import interleaved, spread, table
from benchmarks.tokenizer import encode_and_decode
from benchmarks.training import train_step
from spae.autoencoder import Autoencoder
from spae.tokenizer import Tokenizer
from spae.vocabulary import View, Vocabulary
from tokenizer_train.config_file import load_config

SPREAD = {"median", "min", "max", "iqr"}


@pytest.fixture(scope="module", autouse=True)
def cache_of_compiled_functions():
    """Benchmarks do without it."""
    kept = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", kept)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    embeddings = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    views = {"meaning": View.raw(), "appearance": View.whitened(embeddings, 4)}
    words = tuple(f"{a}{b}" for a in "abcde" for b in "klmnop")
    return Vocabulary(words, np.arange(30), embeddings, views, {})


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> Tokenizer:
    config = load_config(run.CONFIG, "tiny").tokenizer
    return Tokenizer(config, vocabulary, drawn(lambda rngs: Autoencoder(config, 4, 8, rngs=rngs)))


class FakePeer:
    facts = {"threads": 7}  # noqa: RUF012

    def __init__(self):
        self.asked = []

    def ask(self, **request):
        self.asked.append(request)


def test_spread():
    assert spread([4.0, 1.0, 2.0, 3.0, 10.0]) == {"median": 3.0, "min": 1.0, "max": 10.0, "iqr": 2.0}


def test_calls_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    order = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(len(order)))
    calls = {"a": lambda: order.append("a"), "b": lambda: order.extend("bb")}
    assert interleaved(calls, repeats=2, warmup=1) == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert "".join(order) == "abb" * 3


def test_encode_and_decode(tokenizer):
    results = encode_and_decode(tokenizer, batches=(1, 2), repeats=2, peer=FakePeer())
    assert set(results) == {
        f"{action}, batch {batch}{peer}"
        for action in ("encode", "decode")
        for batch in (1, 2)
        for peer in ("", ", PyTorch", ", PyTorch compiled")
    }
    entry = results["encode, batch 2"]
    assert {"dtype", "batch", "resolution", "compile_s", "warmup", "repeats", "seconds"} <= set(entry)
    assert (entry["batch"], entry["resolution"], entry["repeats"]) == (2, 32, 2)
    assert set(entry["seconds"]) == SPREAD
    assert entry["images_per_s"]["median"] == pytest.approx(2 / entry["seconds"]["median"])
    assert entry["images_per_s"]["min"] <= entry["images_per_s"]["max"]


def test_quantizer(tokenizer):
    results = quantize_words(tokenizer, [2], repeats=1, peer=FakePeer())
    programs = ("streaming average", "PyTorch", "PyTorch compiled", "vector-quantize-pytorch")
    assert list(results) == [f"{program}, batch 2" for program in programs]
    assert results["streaming average, batch 2"]["compile_s"] >= 0


def test_parts(tokenizer):
    results = parts(tokenizer, [2], repeats=1)
    assert list(results) == [
        f"{part}, batch 2" for part in ("words", "encoder", "decoder")
    ]  # it has no trunk
    words, encoder, _ = results.values()
    assert words["flops"] > encoder["flops"] > 2 * 32 * 32 * 3
    assert encoder["bytes_moved"] >= 2 * 32 * 32 * 3


def test_work_is_what_is_computed_and_read():
    product = jax.jit(lambda a, b, unread: (a @ b, jnp.zeros(5)))
    arguments = (jnp.ones((3, 20)), jnp.ones((20, 4)), jnp.ones(1000))
    assert work(product.trace(*arguments)) == {
        "flops": 2 * 3 * 20 * 4,
        "bytes_moved": 4 * (3 * 20 + 20 * 4 + 3 * 4 + 5),
    }


def test_the_limit_is_the_slower_of_computing_and_moving():
    limits = {"product": {"flops_per_s": 100.0}, "copy": {"bytes_per_s": 10.0}}
    seconds = {"seconds": {"median": 4.0}}
    entries = {
        "computes": {"flops": 200.0, "bytes_moved": 5.0, **seconds},
        "moves": {"flops": 2.0, "bytes_moved": 30.0, **seconds},
        "untold": seconds,
    }
    found = beside_limits({"group": entries}, limits)["group"]
    assert (found["computes"]["floor_s"], found["computes"]["of_limit"]) == (2.0, 0.5)
    assert (found["moves"]["floor_s"], found["moves"]["of_limit"]) == (3.0, 0.75)
    assert found["untold"] == seconds


@pytest.mark.parametrize("meaning", ["head", "pursuit"])
def test_train_step(vocabulary, meaning):
    config = load_config(run.CONFIG, "tiny")
    # Without discriminator and networks, which take long to compile.
    tokenizer = dataclasses.replace(config.tokenizer, network="linear")
    loss = dataclasses.replace(config.loss, adversarial=0.0)
    if meaning == "pursuit":  # as in the config that is measured
        tokenizer = dataclasses.replace(
            tokenizer, meaning="pursuit", meaning_words="apart", pools=(1, 1), trunk="conse"
        )
        loss = dataclasses.replace(loss, semantic=0.0, semantic_layers=0)
    config = dataclasses.replace(config, tokenizer=tokenizer, loss=loss)
    entry = train_step(config, vocabulary, repeats=2)["step"]
    assert (entry["batch"], entry["resolution"], entry["vocabulary"]) == (8, 32, 30)
    assert entry["compile_s"] > 0
    assert entry["steps_per_s"]["median"] == pytest.approx(1 / entry["seconds"]["median"])


def test_nearest_word_beside_the_full_matrix():
    # Large enough that the full matrix, 300 x 2000 floats, is more than a chunk of ours.
    peer = FakePeer()
    results = nearest_word(positions=300, words=2000, width=4, repeats=2, peer=peer)
    assert set(results) == {"streamed", "full matrix", "full matrix, two minima", "PyTorch", "faiss"}
    assert (
        results["full matrix"]["temporary_bytes"] >= 300 * 2000 * 4 > results["streamed"]["temporary_bytes"]
    )
    assert all(set(entry["seconds"]) == SPREAD for entry in results.values())
    assert results["faiss"]["threads"] == 7
    asked = {"positions": 300, "words": 2000, "width": 4}
    assert peer.asked == 3 * [{"call": "nearest", **asked}, {"call": "faiss", **asked}]


def test_log_sum_exp_beside_the_full_matrix():
    results = log_sum_exp_words(positions=3, words=20, width=4, repeats=1)
    assert set(results) == {"streamed", "full matrix", "streamed, gradient", "full matrix, gradient"}
    assert all(entry["temporary_bytes"] >= 0 for entry in results.values())


def test_kernels_beside_loops():
    results = kernels("tpu", [(3, 20, 4)], repeats=1, interpret=True)
    names = ("narrow loops", "wide loops", "kernel", "log-sum-exp, loops", "log-sum-exp, kernel")
    assert set(results) == {f"3 x 20 x 4, {name}" for name in names}
    assert results["3 x 20 x 4, kernel"]["other_words"] == 0
    assert 0 <= results["3 x 20 x 4, log-sum-exp, kernel"]["largest_difference"] < 1e-4
    (entry,) = kernels("cpu", [(3, 20, 4)], repeats=1).values()
    assert entry["seconds"] is None
    assert "this is a cpu" in entry["reason"]


def test_starts_are_of_whole_processes(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "bundle")
    results = cold_and_warm(str(tmp_path / "bundle"), repeats=1)
    assert {name: entry["compile_cache"] for name, entry in results.items()} == {
        "cold": "cold",
        "warm": "warm",
    }
    # Nothing imports JAX in less.
    assert all(entry["seconds"]["min"] > 0.1 for entry in results.values())


def test_the_command_writes_json_and_prints_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "SEARCHES", [(3, 20, 4)])
    output = tmp_path / "bench.json"
    assert main(["--output", str(output), "--only", "nearest", "--repeats", "2"]) == 0
    document = json.loads(output.read_text())
    assert {"device", "cores", "jax", "python", "processor"} <= set(document["machine"])
    assert set(document["results"]) == {"nearest"}
    assert document["results"]["nearest"]["3 x 20 x 4, streamed"]["repeats"] == 2
    shown = capsys.readouterr().out
    assert "nearest: 3 x 20 x 4, streamed" in shown
    assert "MB temporary" in shown
    assert str(output) in shown


def test_no_bundle_is_one_clear_line(tmp_path, capsys):
    output = tmp_path / "bench.json"
    assert main(["--output", str(output), "--only", "tokenizer", "--bundle", str(tmp_path / "none")]) == 1
    assert "wanted a bundle" in capsys.readouterr().err
    assert not output.exists()


def test_what_could_not_run_is_in_the_table_with_its_reason():
    assert "Ray is not installed" in table(
        {"bulk": {"Ray": {"seconds": None, "reason": "Ray is not installed"}}}
    )
