"""Endpoints that fail, through inspect's own eval: which calls recover, which samples stop, and with what reason."""

import gc
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import Score, Target, accuracy, scorer
from inspect_ai.solver import Generate, TaskState, solver
from misbehaving_server import (
    MisbehavingServer,
    completion,
    cut_before_answering,
    cut_half_way,
    echo_headers,
    hang,
    raw,
    refuse,
    reply,
    serve,
)

import icl_runner.providers  # noqa: F401, where the package was installed before it had this entry point
from icl_runner.pictures.progressive import read_words
from icl_runner.prompts import CHAT, STOP, classify
from icl_runner.scoring import chosen, open_match
from spae.errors import InputError
from spae.pyramid import PyramidShape
from spae.text import parse
from spae.vocabulary import View, Vocabulary

pytestmark = [
    # inspect leaves streams between its own tasks open at the end of an eval.
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    # google-genai makes its HTTP session by a way that aiohttp discourages.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]

KEY = "sk-0123456789-secret"
NAMES = ("dog", "hot dog", "cat")
PROMPT = classify(NAMES, [("bark fur paw", "dog"), ("meow fur paw", "cat")], "tail bark collar")


@solver
def ask():
    """As the tasks ask: `completions` gets the text alone, chat models are told to go on."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        messages = [ChatMessageUser(content=state.input_text)]
        if model.api.qualified_model_name.partition("/")[0] != "completions":
            messages.insert(0, ChatMessageSystem(content=CHAT))
        config = GenerateConfig(max_tokens=5, temperature=0, stop_seqs=list(PROMPT.stop))
        state.output = await model.generate(messages, config=config)
        return state

    return solve


@scorer(metrics=[accuracy()])
def by_open_match():
    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=float(open_match(state.output.completion, target.text, PROMPT.stop)))

    return score


@pytest.fixture(scope="module", autouse=True)
def collected():
    yield
    gc.collect()  # while the streams' warnings are ignored


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("SPAE_COMPLETIONS_BASE_URL", raising=False)
    monkeypatch.setenv("SPAE_COMPLETIONS_API_KEY", KEY)


@pytest.fixture
def server():
    with serve(completion(" dog\n")) as server:
        yield server


def run(tmp_path, model, prompts=(PROMPT.text,), **options):
    """One sample for each prompt; the log."""
    samples = [Sample(id=f"s{i}", input=prompt, target="dog") for i, prompt in enumerate(prompts)]
    (log,) = eval(
        Task(dataset=samples, solver=ask(), scorer=by_open_match()),
        model=model,
        fail_on_error=False,
        log_dir=str(tmp_path / "logs"),
        log_format="json",
        display="none",
        **options,
    )
    return log


def completions(url, **arguments):
    # The waits are tiny; the one that the endpoint may ask for is not below the cap of a test.
    arguments = {"base_url": url, "retry_base": 0.001, "retry_longest": 0.3} | arguments
    return get_model("completions/m", memoize=False, **arguments)


@dataclass
class Case:
    """`asked`: how many requests there should be, None where that depends on the machine's speed; `reason`: of the
    sample's stop, None where it recovers."""

    script: list
    asked: int | None
    reason: str | None = None
    score: float = 1.0
    usual: object = None
    arguments: dict | None = None
    max_retries: int | None = None


PAST = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
SOON = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)  # a day: capped at 0.3 s
GARBAGE = raw(b"<html>Bad gateway</html>", content_type="text/html")
BAD = refuse(400, "max_tokens is too large")

CASES = {
    "429 without Retry-After": Case([refuse(429), refuse(429)], asked=3),
    "429 with Retry-After in seconds": Case([refuse(429, Retry_After="0.2")], asked=2),
    "429 with Retry-After beyond the cap": Case([refuse(429, Retry_After="86400")], asked=2),
    "429 with Retry-After as a date": Case([refuse(429, Retry_After=SOON)], asked=2),
    "429 with Retry-After as a date that is past": Case([refuse(429, Retry_After=PAST)], asked=2),
    "429 for ever": Case(
        [], 4, r"HTTP 429 .*: slow down \(attempt 4, the last\)", 0, refuse(429, "slow down"), {}, 3
    ),
    "quota used up": Case(
        [], 3, r"HTTP 429 .*: pay \(the same 3 times\)", 0, refuse(429, "pay", "insufficient_quota")
    ),
    "500": Case([refuse(500), refuse(502), refuse(503)], asked=4),
    "503 with Retry-After": Case([refuse(503, Retry_After="0.2")], asked=2),
    "500 for ever": Case([], 3, r"HTTP 500 .*: no \(attempt 3, the last\)", 0, refuse(500), {}, 2),
    "500 for ever, retries not set": Case([], 9, r"HTTP 500 .* \(attempt 9, the last\)", 0, refuse(500)),
    "timeout": Case([hang], None, arguments={"timeout": 0.5}),
    "timeout for ever": Case(
        [],
        None,
        r"no answer within 0.2 s \(attempt 2, the last\)",
        0,
        hang,
        {"timeout": 0.2},
        1,
    ),
    "connection cut before the answer": Case([cut_before_answering], asked=2),
    "connection cut half-way": Case([cut_half_way, cut_half_way], asked=3),
    "empty body": Case([raw(b""), raw(b" \n")], asked=3),
    "body that is not JSON": Case([GARBAGE, raw(b'{"choices": [{"te')], asked=3),
    "body that is never JSON": Case(
        [], 2, r"not JSON: <html>Bad gateway</html> \(attempt 2", 0, GARBAGE, {}, 1
    ),
    "JSON without an answer": Case(
        [], 3, r'without choices.*: \{"choices": \[\]\} \(the same 3 times\)', 0, reply({"choices": []})
    ),
    "an answer that cannot be read": Case(
        [], 3, r"cannot be read: .*\(the same 3 times\)", 0, completion("", logprobs={"content": "no list"})
    ),
    "400": Case([], 3, r"HTTP 400 .*/v1: max_tokens is too large \(the same 3 times\)", 0, BAD),
    "400 that passes": Case([BAD, BAD], asked=3),
    "401": Case([], 3, r"HTTP 401 .*: who\? \(the same 3 times\)", 0, refuse(401, "who?")),
    "403": Case([], 3, r"HTTP 403 .*: not you \(the same 3 times\)", 0, refuse(403, "not you")),
    "404": Case(
        [], 3, r"HTTP 404 .*: no such model: is the name .*\(the same 3", 0, refuse(404, "no such model")
    ),
    "400 while retries are off": Case([], 1, r"HTTP 400 .* \(attempt 1, the last\)", 0, BAD, {}, 0),
    "redirected elsewhere": Case(
        [], 3, r"HTTP 307 .*\(the same 3 times\)", 0, reply({}, 307, {"Location": "http://127.0.0.1:9/"})
    ),
    "refusal": Case([completion("", "content_filter")], asked=1, score=0),
    "wrong words": Case([completion(" dogs\n")], asked=1, score=0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_faults(server: MisbehavingServer, tmp_path, case):
    server.script = list(case.script)
    server.usual = case.usual or server.usual
    model = completions(server.url, **(case.arguments or {}))
    log = run(tmp_path, model, max_retries=case.max_retries)
    assert log.status == "success"  # of the run: a sample that stops does not stop the others
    (sample,) = log.samples
    assert case.asked in (None, len(server.asked))
    if case.reason is None:
        assert sample.error is None
        assert sample.scores["by_open_match"].value == case.score
    else:
        assert re.search(case.reason, sample.error.message)
        assert "scores" not in sample or not sample.scores


def test_retry_after_is_waited_for(server, tmp_path):
    server.script = [refuse(429, Retry_After="0.3"), refuse(503, Retry_After=SOON)]
    run(tmp_path, completions(server.url, retry_longest=0.4))
    first, second = server.waits()
    assert first >= 0.3
    assert second >= 0.4


def test_a_sample_that_stops_does_not_stop_the_others(server, tmp_path):
    server.scripts = {"tail": [], "bad prompt": [BAD] * 99, "ill prompt": [refuse(500)] * 2}
    prompts = [PROMPT.text, "a bad prompt", "an ill prompt", PROMPT.text + " "]
    log = run(tmp_path, completions(server.url), prompts)
    assert log.status == "success"
    errors = {sample.id: sample.error and sample.error.message for sample in log.samples}
    assert errors["s0"] is errors["s2"] is errors["s3"] is None
    assert "max_tokens is too large (the same 3 times)" in errors["s1"]
    asked = [body["prompt"] for body in server.bodies]
    assert sorted(asked.count(prompt) for prompt in prompts) == [1, 1, 3, 3]
    assert sum(sample.error is None for sample in log.samples) == 3


def test_a_refusal_is_told_from_an_empty_answer(server, tmp_path):
    server.scripts = {"one": [completion("", "content_filter")], "two": [completion("")]}
    log = run(tmp_path, completions(server.url), ["one", "two"])
    assert {s.id: s.output.stop_reason for s in log.samples} == {"s0": "content_filter", "s1": "stop"}


def test_nobody_listens(tmp_path):
    with serve(completion("")) as server:
        pass
    log = run(tmp_path, completions(server.url), max_retries=1)
    assert "the connection failed: ClientConnectorError" in log.samples[0].error.message
    assert "(attempt 2, the last)" in log.samples[0].error.message


@pytest.mark.parametrize("with_user", [False, True])
def test_keys_are_nowhere_to_be_seen(server, tmp_path, inspect_trace, monkeypatch, capfd, caplog, with_user):
    """The endpoint repeats all that it was sent, logs are at their loudest, and tracebacks show variables."""
    monkeypatch.setenv("INSPECT_TRACEBACK_LOCALS", "1")
    caplog.set_level(logging.DEBUG)
    secrets = [KEY]
    url = server.url
    if with_user:
        monkeypatch.delenv("SPAE_COMPLETIONS_API_KEY")
        monkeypatch.setenv("SPAE_COMPLETIONS_BASE_URL", server.url.replace("//", "//me:hunter2-secret@"))
        secrets = ["hunter2-secret", "bWU6aHVudGVyMi1zZWNyZXQ="]
        url = None
    server.scripts = {
        "echo": [echo_headers(401)] * 9,
        "late": [hang] * 9,
        "cut": [cut_half_way] * 9,
        "busy": [echo_headers(503)],
    }
    shown, errors = [], []
    for prompts, timeout in ((["echo", "cut", "busy"], 60), (["late"], 0.2)):
        model = completions(url, timeout=timeout)
        shown += [repr(model), repr(model.api), str(model.api)]
        log = run(tmp_path, model, prompts, max_retries=1, log_level="debug", debug_errors=False)
        errors += [sample.error for sample in log.samples if sample.error]
        shown.append(log.model_dump_json())
    assert len(errors) == 3
    shown += [text for error in errors for text in (error.message, error.traceback, error.traceback_ansi)]
    output = capfd.readouterr()
    shown += [output.out, output.err, caplog.text]
    files = [inspect_trace, *(tmp_path / "logs").glob("*.json")]
    assert len(files) == 3
    shown += [path.read_text() for path in files]
    assert any(secrets[-1] in asked.headers["Authorization"] for asked in server.asked)
    assert "[secret]" in errors[0].message
    for secret in secrets:
        assert not [text[:200] for text in shown if secret in text]


# ---- chat models, through inspect's own providers


# inspect never closes its providers' connections, so this server does.
CLOSE = {"Connection": "close"}


def chat_completion(text):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return reply({**head, "choices": [choice], "usage": usage}, headers=CLOSE)


def test_a_gpt_style_endpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serve(chat_completion("dog")) as server:
        server.script = [reply({"error": {"message": "busy"}}, 500, CLOSE)]
        model = get_model("openai/gpt-4o", memoize=False, base_url=server.url, responses_api=False)
        log = run(tmp_path, model, max_retries=2)
    assert log.samples[0].scores["by_open_match"].value == 1
    system, user = server.bodies[-1]["messages"]
    assert (system["content"], user["content"]) == (CHAT, PROMPT.text)
    assert server.bodies[-1]["stop"] == list(STOP)
    assert KEY not in log.model_dump_json()


def test_a_gemini_style_endpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    part = {"content": {"role": "model", "parts": [{"text": "dog"}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 1, "totalTokenCount": 8}
    with serve(
        reply({"candidates": [part], "usageMetadata": usage, "modelVersion": "m"}, headers=CLOSE)
    ) as server:
        monkeypatch.setenv("GOOGLE_BASE_URL", server.url.removesuffix("/v1"))
        log = run(tmp_path, get_model("google/gemini-2.0-flash", memoize=False), max_retries=2)
    assert log.samples[0].scores["by_open_match"].value == 1
    (asked,) = server.asked
    assert asked.path.endswith("gemini-2.0-flash:generateContent")
    assert asked.body["contents"][0]["parts"][0]["text"] == PROMPT.text
    assert CHAT in str(asked.body["systemInstruction"])
    assert KEY not in log.model_dump_json()


# ---- answers that are not what was asked for

WORDS = (
    "dog",
    "park",
    "grass",
    "animal",
    "brown",
    "tree",
    "house",
    "water",
    "bird",
    "cat",
    "table",
    "elephant",
)
VOCABULARY = Vocabulary(
    WORDS,
    np.arange(len(WORDS)),
    np.eye(len(WORDS), dtype=np.float32),
    {"meaning": View.raw(), "appearance": View.raw()},
    {},
)
SHAPE = PyramidShape((1, 2))  # five words
WANTED = "dog park grass animal brown"

# What the model wrote -> the words that are read from it, and the kinds of repairs.
READ = {
    "as asked": (f" {WANTED}\n", WANTED, {"whitespace"}),
    "wrong words, near ones": (" dog park gras animel brown", WANTED, {"unknown"}),
    "wrong words, far ones": (" dog park xylophone animal brown", "dog park dog animal brown", {"unknown"}),
    "too few": (" dog park grass", "dog park grass dog dog", {"missing"}),
    "too many": (f" {WANTED} tree house water", WANTED, {"surplus"}),
    "a list": ("1. Dog\n2. Park\n3. Grass\n4. Animal\n5. Brown", WANTED, {"numbering", "case", "whitespace"}),
    "in quotation marks": ('"dog, park, grass, animal, brown."', WANTED, {"punctuation"}),
    "another language, some words of it": ("der dog im park, grass und animal", None, {"unknown", "surplus"}),
    "another script": ("собака парк трава животное коричневый", None, None),
    "another script and one word": (
        "собака dog трава животное коричневый",
        "dog dog dog dog dog",
        {"unknown"},
    ),
    "nothing": ("", None, None),
    "an apology": ("I'm sorry, but I can't do that.", "cat cat cat cat cat", {"unknown"}),
}


@pytest.mark.parametrize(("text", "words", "kinds"), READ.values(), ids=READ)
def test_words_that_are_not_as_asked(text, words, kinds):
    if kinds is None:  # nothing near the vocabulary: said, never guessed
        with pytest.raises(InputError, match="wanted words"):
            parse(text, VOCABULARY, SHAPE, layers=2)
        assert read_words(text, 5, VOCABULARY)[0] == [None] * 5
        return
    parsed = parse(text, VOCABULARY, SHAPE, layers=2)
    found = parsed.pyramid.text()
    assert set(found.split()) <= set(WORDS)
    assert len(found.split()) == 5
    assert kinds <= {repair.kind for repair in parsed.repairs}
    if words is not None:
        assert found == words


# What the model wrote -> right by rule (a), open-ended exact match; the name by rule (b).
ANSWERS = {
    "right": (" dog\n###\nInput: more", True, "dog"),
    "right, no end": (" dog", True, "dog"),
    "wrong": (" cat\n", False, "cat"),
    "wrong word": (" wolf\n", False, None),
    "another case": (" Dog\n", False, "dog"),
    "a full stop": (" dog.\n", False, "dog"),
    "too many words": (" dog and some more\n", False, "dog"),
    "a longer name that begins alike": (" hot dog\n", False, "hot dog"),
    "plural": (" dogs\n", False, None),
    "an explanation": (" The answer is dog\n", False, None),
    "another language": (" der Hund\n", False, None),
    "another script": (" собака\n", False, None),
    "only white space": (" \n", False, None),
    "nothing": ("", False, None),
    "an apology": (" I'm sorry, but I can't do that.", False, None),
    "on the next line": ("\ndog", False, "dog"),
}


@pytest.mark.parametrize(("text", "right", "name"), ANSWERS.values(), ids=ANSWERS)
def test_answers_that_are_not_as_asked(text, right, name):
    assert open_match(text, "dog", STOP) is right
    assert chosen(text, NAMES) == name


def test_answers_reach_the_scorer_as_they_were_written(server, tmp_path):
    texts = [text for text, _, _ in ANSWERS.values()]
    prompts = [f"<{i}> {PROMPT.text}" for i in range(len(texts))]
    server.scripts = {f"<{i}>": [completion(text)] for i, text in enumerate(texts)}
    log = run(tmp_path, completions(server.url), prompts)
    found = {sample.id: sample for sample in log.samples}
    for i, (text, right, _) in enumerate(ANSWERS.values()):
        assert found[f"s{i}"].output.completion == text
        assert found[f"s{i}"].scores["by_open_match"].value == right
