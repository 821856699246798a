"""The two providers: what goes out and what comes back, against a local endpoint and a model that is made up."""

import asyncio
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from misbehaving_server import completion, refuse, reply, serve

import icl_runner.providers  # noqa: F401, where the package was installed before it had this entry point
from icl_runner import together as calls_together
from icl_runner.cells import Call
from icl_runner.constraints import LOG_PROBS, Choices, Likelihoods, Words
from icl_runner.prompts import Prompt
from icl_runner.providers import dialects, embedded
from icl_runner.providers.dialects import fields, pattern
from icl_runner.providers.retries import Attempts, EndpointError, RetryPolicy, retry_after
from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import Generation
from spae.frozen_lm.constraint import encode_behind
from spae.frozen_lm.writable import WritableWords

VARIABLES = (
    "SPAE_COMPLETIONS_BASE_URL",
    "SPAE_COMPLETIONS_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_API_KEY",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serve(completion(" dog")) as server:
        yield server


def ask(model, prompt="Output:", **config):
    """One call in an event loop of its own, as inspect makes one for each eval."""

    async def call():
        try:
            return await model.generate([ChatMessageUser(content=prompt)], config=GenerateConfig(**config))
        finally:
            await model.api.aclose()

    return asyncio.run(call())


def completions(server, **arguments):
    arguments = {"retry_base": 0.001, "base_url": server.url} | arguments
    return get_model("completions/org/m", memoize=False, **arguments)


# ---- completions: what goes out


def test_the_request_holds_the_settings_and_nothing_else(server):
    ask(
        completions(server),
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        stop_seqs=["\n"],
        seed=3,
        logprobs=True,
        top_logprobs=2,
        logit_bias={42: -100, 7: 1},
        num_choices=2,
        extra_body={"min_p": 0.1, **Choices(("dog", "cat")).extra_body()},
        extra_headers={"X-Run": "7"},
    )
    (asked,) = server.asked
    assert asked.path == "/v1/completions"
    assert asked.body == {
        "model": "org/m",
        "prompt": "Output:",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 3,
        "logprobs": 2,
        "logit_bias": {"42": -100, "7": 1},
        "n": 2,
        "min_p": 0.1,
    }
    assert "Authorization" not in asked.headers
    assert asked.headers["X-Run"] == "7"


def test_what_is_not_set_is_left_to_the_endpoint(server):
    ask(completions(server))
    assert server.bodies == [{"model": "org/m", "prompt": "Output:"}]


@pytest.mark.parametrize(
    ("dialect", "wanted"),
    [
        ("llama.cpp", {"grammar": 'root ::= " dog" | " hot \\"dog\\""\n'}),
        ("vllm", {"structured_outputs": {"choice": [" dog", ' hot "dog"']}}),
        ("none", {}),
    ],
)
def test_choices_in_each_dialect(server, dialect, wanted):
    choices = Choices(("dog", 'hot "dog"'))
    output = ask(completions(server, dialect=dialect), extra_body=choices.extra_body())
    assert {k: v for k, v in server.bodies[0].items() if k not in ("model", "prompt")} == wanted
    assert output.metadata == {"constrained": dialect != "none"}


def test_an_unconstrained_answer_says_nothing_of_constraints(server):
    assert ask(completions(server)).metadata is None


def tokens(*pairs) -> dict:
    """Of a chat's shape, as llama.cpp sends it."""
    return {"content": [{"token": token, "logprob": value} for token, value in pairs]}


def test_likelihoods_are_asked_for_one_text_after_the_other(server):
    """Each text is the only one allowed, up to the end of its line; what an endpoint tells of its end is left out."""
    server.script = [
        completion(" hot dog\n", logprobs=tokens((" hot", -3.0), (" dog", -1.0), ("\n", -0.5), ("", -9.0))),
        completion(" cat\n", logprobs={"tokens": [" cat", "\n"], "token_logprobs": [-2.0, -0.25]}),
    ]
    body = Likelihoods(("hot dog", "cat")).extra_body()
    asked = {"max_tokens": 9, "stop_seqs": ["\n"], "extra_body": body}
    output = ask(completions(server, dialect="llama.cpp"), **asked)
    assert output.metadata == {"constrained": True, LOG_PROBS: [-4.5, -2.25]}
    assert output.completion == " cat\n"
    assert output.usage.input_tokens == 14
    grammars = ['root ::= " hot dog\\n"\n', 'root ::= " cat\\n"\n']
    assert [one["grammar"] for one in server.bodies] == grammars
    assert all(one["logprobs"] == 1 and "stop" not in one for one in server.bodies)


def test_likelihoods_that_are_not_told(server):
    body = Likelihoods(("cat",)).extra_body()
    with pytest.raises(InputError, match=r"dialect=llama\.cpp or"):
        ask(completions(server), extra_body=body)
    assert not server.bodies
    for told in ({}, {"logprobs": tokens((" dog", -1.0), ("\n", -1.0))}):
        server.script = [completion(" cat\n", **told)] * 3
        with pytest.raises(EndpointError, match=r"without the log-probabilities.* wanted those of ' cat"):
            ask(completions(server, dialect="vllm"), extra_body=body)


TOGETHER = [
    Call("open", Prompt("context ", "query"), 5),
    Call("constrained", Prompt("context ", "query", ("\n",)), 6, ("dog", "cat")),
    Call("likeliest", Prompt("other ", "query"), 7, ("cat",), likelihoods=True),
]


def test_calls_of_a_sample_travel_together(server):
    """Each has an answer of its own, and is tried again by itself."""
    told = completion(" cat\n", logprobs=tokens((" cat", -2.0), ("\n", -0.5)))
    server.script = [completion(" dog"), refuse(503), completion(" cat"), told]
    output = ask(
        completions(server, dialect="llama.cpp"), "?", extra_body=calls_together.extra_body(TOGETHER)
    )
    assert [one.completion for one in calls_together.parted(output)] == [" dog", " cat", " cat\n"]
    metadata = [one.metadata for one in calls_together.parted(output)]
    assert metadata == [None, {"constrained": True}, {"constrained": True, LOG_PROBS: [-2.5]}]
    assert output.usage.input_tokens == 21
    prompts = [body["prompt"] for body in server.bodies]
    assert prompts == ["context query", "context query", "context query", "other query"]
    assert [body["max_tokens"] for body in server.bodies] == [5, 6, 6, 7]
    assert [body.get("stop") for body in server.bodies] == [["\n", "###"], ["\n"], ["\n"], None]
    assert ["grammar" in body for body in server.bodies] == [False, True, True, True]
    assert not any("spae" in body for body in server.bodies)


def test_one_of_several_calls_that_fails_for_good(server):
    server.script = [completion(" dog")]
    server.usual = refuse(400, "no such grammar")
    with pytest.raises(EndpointError, match=r"no such grammar \(the same 3 times\)"):
        ask(completions(server), extra_body=calls_together.extra_body(TOGETHER[:2]))
    assert len(server.asked) == 1 + 3


def test_words_in_each_dialect(monkeypatch):
    monkeypatch.setattr(dialects, "vocabulary_words", lambda name: ["cat", "car", "card", "dog"])
    dialects._word_pattern.cache_clear()
    regex = fields(Words(2, "tiny"), "vllm", "Output:")["structured_outputs"]["regex"]
    assert regex == "( (ca(t|r(d)?)|dog)){2}"
    grammar = fields(Words(2, "tiny"), "llama.cpp", "Output:")["grammar"]
    assert grammar == 'root ::= (" " word){2}\nword ::= ("ca" ("t"|"r" ("d")?)|"dog")\n'
    assert fields(Words(2, "tiny"), "none", "Output:") == {}


@settings(max_examples=50)
@given(st.sets(st.text("abc'.(|é", min_size=1, max_size=5), min_size=1, max_size=8), st.text("abc'.(|é"))
def test_the_pattern_matches_its_words_and_no_other(words, other):
    regex = re.compile(pattern(sorted(words), "vllm"))
    assert all(regex.fullmatch(word) for word in words)
    assert bool(regex.fullmatch(other)) == (other in words)


def test_the_pattern_of_the_shipped_vocabulary_knows_its_words():
    words = dialects.vocabulary_words("default")
    regex = re.compile(fields(Words(3), "vllm", "Output:")["structured_outputs"]["regex"])
    assert regex.fullmatch("".join(f" {word}" for word in words[:3]))
    assert not regex.fullmatch(f" {words[0]} {words[1]}")
    assert not regex.fullmatch(f" {words[0]} {words[1]} {words[2][:-1]}qqq")


# ---- completions: what comes back


def test_the_answer(server):
    server.script = [completion(" dog", "length")]
    output = ask(completions(server))
    assert output.completion == " dog"
    assert output.stop_reason == "max_tokens"
    assert output.model == "m"
    assert (output.usage.input_tokens, output.usage.output_tokens, output.usage.total_tokens) == (7, 2, 9)


def test_several_answers_come_in_their_order(server):
    choices = [{"index": i, "text": text, "finish_reason": "stop"} for i, text in ((1, "b"), (0, "a"))]
    server.script = [reply({"choices": choices})]
    output = ask(completions(server), num_choices=2)
    assert [choice.message.text for choice in output.choices] == ["a", "b"]
    assert output.usage is None


@pytest.mark.parametrize(
    "logprobs",
    [
        {
            "tokens": [" hot", " dog"],
            "token_logprobs": [-0.5, -0.25],
            "top_logprobs": [{" hot": -0.5, " cat": -2.0}, None],
        },
        {
            "content": [
                {
                    "token": " hot",
                    "logprob": -0.5,
                    "id": 3,
                    "top_logprobs": [
                        {"token": " hot", "logprob": -0.5},
                        {"token": " cat", "logprob": -2.0},
                    ],
                },
                {"token": " dog", "logprob": -0.25, "id": 4},
            ]
        },
    ],
    ids=["completions", "llama.cpp"],
)
def test_log_probabilities(server, logprobs):
    server.script = [completion(" hot dog", logprobs=logprobs)]
    content = ask(completions(server), logprobs=True).choices[0].logprobs.content
    assert [(one.token, one.logprob) for one in content] == [(" hot", -0.5), (" dog", -0.25)]
    assert {top.token: top.logprob for top in content[0].top_logprobs} == {" hot": -0.5, " cat": -2.0}


def test_tokens_from_the_endpoints_cache_are_counted_apart(server):
    usage = {"prompt_tokens": 100, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 64}}
    server.script = [reply({"choices": [{"text": "x"}], "usage": usage})]
    found = ask(completions(server)).usage
    assert (found.input_tokens, found.input_tokens_cache_read, found.total_tokens) == (36, 64, 102)


@pytest.mark.parametrize(
    "behaviour",
    [
        completion("", "content_filter"),
        refuse(400, "The prompt was filtered", "content_filter"),
    ],
    ids=["finish reason", "error"],
)
def test_a_refusal_is_an_answer(server, behaviour):
    server.usual = behaviour
    output = ask(completions(server))
    assert (output.completion, output.stop_reason) == ("", "content_filter")
    assert len(server.asked) == 1


def test_one_model_serves_several_event_loops(server):
    model = completions(server)

    async def call():
        return await model.generate([ChatMessageUser(content="Output:")])

    for _ in range(2):  # no aclose: the loop itself closes the connections, or a warning would fail this test
        assert asyncio.run(call()).completion == " dog"


# ---- completions: base URLs and keys


def test_the_argument_comes_before_the_environment(server, monkeypatch):
    monkeypatch.setenv("SPAE_COMPLETIONS_BASE_URL", "http://nowhere.invalid/v1")
    monkeypatch.setenv("SPAE_COMPLETIONS_API_KEY", "sk-ours")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-theirs")
    ask(completions(server))
    assert server.asked[0].headers["Authorization"] == "Bearer sk-ours"


@pytest.mark.parametrize(
    ("variable", "key", "sent"),
    [
        ("SPAE_COMPLETIONS_BASE_URL", "SPAE_COMPLETIONS_API_KEY", True),
        ("OPENAI_BASE_URL", "OPENAI_API_KEY", True),
        # OpenAI's key is for OpenAI's server.
        ("SPAE_COMPLETIONS_BASE_URL", "OPENAI_API_KEY", False),
    ],
)
def test_a_key_goes_to_its_own_server(server, monkeypatch, variable, key, sent):
    monkeypatch.setenv(variable, server.url + "/")
    monkeypatch.setenv(key, "sk-secret")
    ask(completions(server, base_url=None))
    assert server.asked[0].headers.get("Authorization") == ("Bearer sk-secret" if sent else None)


def test_user_and_password_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("SPAE_COMPLETIONS_BASE_URL", server.url.replace("//", "//me:p%40ss@"))
    model = completions(server, base_url=None)
    ask(model)
    assert server.asked[0].headers["Authorization"] == "Basic bWU6cEBzcw=="
    assert model.api.base_url == server.url


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://me:hunter2@host/v1", "from|of SPAE_COMPLETIONS_BASE_URL"),
        ("host:8000/v1", "wanted the base URL as http"),
        ("ftp://host/v1", "wanted the base URL as http"),
        ("http://:8000/v1", "wanted the base URL as http"),
        ("http://host:hunter2/v1", "wanted the base URL as http"),
        ("http://host/v1?key=hunter2", "with no query"),
    ],
)
def test_base_urls_that_will_not_do(url, wanted):
    with pytest.raises(InputError, match=wanted) as caught:
        get_model("completions/m", memoize=False, base_url=url)
    assert "hunter2" not in str(caught.value)


def test_no_base_url():
    with pytest.raises(InputError, match="SPAE_COMPLETIONS_BASE_URL"):
        get_model("completions/m", memoize=False)


def test_a_key_and_a_password(monkeypatch):
    monkeypatch.setenv("SPAE_COMPLETIONS_BASE_URL", "http://me:hunter2@host/v1")
    monkeypatch.setenv("SPAE_COMPLETIONS_API_KEY", "sk-secret")
    with pytest.raises(InputError, match="got both"):
        get_model("completions/m", memoize=False)


@pytest.mark.parametrize(
    "argument", [{"dialect": "gguf"}, {"timeout": 0}, {"timeout": "1"}, {"retry_base": -1}]
)
def test_bad_arguments(server, argument):
    with pytest.raises(InputError, match="wanted"):
        completions(server, **argument)


def test_one_user_message_only(server):
    model = completions(server)

    async def call(messages):
        return await model.generate(messages)

    with pytest.raises(InputError, match="messages of: system, user"):
        asyncio.run(call([ChatMessageSystem(content="Go on."), ChatMessageUser(content="Output:")]))
    with pytest.raises(InputError, match="empty message"):
        asyncio.run(call([ChatMessageUser(content="")]))
    assert not server.asked


# ---- retries


def test_retry_after_is_seconds_or_a_date():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    past = format_datetime(now - timedelta(seconds=90))
    values = ["7", "0.5", date, past, "Fri, 02 Jan 2026 03:04:25 -0000", "soon", "-3", "nan", "inf", ""]
    found = [retry_after({"Retry-After": value}, now) for value in values]
    assert found == [7.0, 0.5, 90.0, 0.0, 20.0, None, None, None, None, None]
    assert retry_after({}) is None


@given(st.integers(1, 1000), st.none() | st.floats(0, 1e6))
def test_waits_grow_and_are_bounded(attempt, asked):
    policy = RetryPolicy(base=2.0, longest=60.0)
    wait = policy.wait(attempt, asked)
    if asked is None:
        wanted = min(2.0 * 2.0 ** min(attempt - 1, 20), 60.0)
        assert wanted / 2 <= wait <= wanted
    else:
        assert min(asked, 60.0) <= wait <= min(asked, 60.0) + 2.0


def test_waits_differ():
    assert len({RetryPolicy().wait(3, None) for _ in range(10)}) == 10
    assert len({RetryPolicy().wait(3, 5.0) for _ in range(10)}) == 10


def test_the_same_deterministic_failure_is_given_up_the_third_time():
    attempts = Attempts(RetryPolicy(max_retries=100))
    kinds = ["bad", "busy", "other", "bad", "busy", "busy", "bad"]
    errors = [
        EndpointError("transient" if kind == "busy" else "deterministic", kind, f"request {i}")
        for i, kind in enumerate(kinds)
    ]
    raised = [attempts.failed(error, None) for error in errors]
    assert [error.final for error in raised] == [False] * 6 + [True]
    assert str(raised[-1]) == "bad: request 6 (the same 3 times)"


@pytest.mark.parametrize(("of_inspect", "tried"), [(None, 3), (0, 1), (5, 6)])
def test_retries_are_bounded(of_inspect, tried):
    attempts = Attempts(RetryPolicy(max_retries=2))
    raised = []
    while not raised or not raised[-1].final:
        raised.append(attempts.failed(EndpointError("transient", "busy"), of_inspect))
    assert len(raised) == tried
    assert str(raised[-1]) == f"busy (attempt {tried}, the last)"


# ---- the embedded model


class MadeUpTokenizer:
    """Words are numbered as they come; a space belongs to the word behind it."""

    def __init__(self):
        self.pieces: list[str] = []

    def encode(self, text):
        found = re.findall(r"\s?[^\s]+|\s", text)
        for piece in found:
            if piece not in self.pieces:
                self.pieces.append(piece)
        return [self.pieces.index(piece) for piece in found]

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


class MadeUpModel:
    """Continues every prompt by its last word, or by the first thing that its constraint allows."""

    name, context_length = "made-up", 50

    def __init__(self):
        self.tokenizer = MadeUpTokenizer()
        self.calls = []
        self.given = 0  # prompts, answered or not
        self.read = []  # in each call
        self.go_on = threading.Event()
        self.go_on.set()

    def encode(self, text):
        return self.tokenizer.encode(text)

    def writable(self, words):
        return WritableWords.of(words, self.tokenizer, self.name)

    def generate(
        self, prompts, max_tokens, *, stop, temperature, top_p, seed, constraints, against, contrast
    ):
        self.given += len(prompts)
        self.contrast = contrast
        self.against = [[self.tokenizer.decode(one) for one in others] for others in against]
        self.read.append([self.tokenizer.decode(one) for one in prompts])
        assert self.go_on.wait(60)
        self.calls.append((len(prompts), max_tokens, stop, temperature, top_p, seed, threading.get_ident()))
        if any("explode" in self.tokenizer.decode(prompt) for prompt in prompts):
            raise InputError("exploded")
        return [self.one(*pair, max_tokens) for pair in zip(prompts, constraints, strict=True)]

    def score(self, context, continuations):
        self.given += 1
        self.read.append([self.tokenizer.decode(context)])
        assert self.go_on.wait(60)
        return [-np.arange(1.0, len(one) + 1) for one in continuations]

    def one(self, prompt, constraint, max_tokens):
        ids, stop = [prompt[-1]], "eos"
        if constraint is not None:
            ids, state, stop = [], constraint.start(), "constraint"
            while len(constraint.allowed(state)) and len(ids) < max_tokens:
                ids.append(int(constraint.allowed(state)[0]))
                state = constraint.step(state, ids[-1])
            if not constraint.finished(state):
                stop = "length"
        return Generation(ids, self.tokenizer.decode(ids), np.full(len(ids), -0.5, np.float32), stop)


@pytest.fixture
def made_up(monkeypatch):
    model = MadeUpModel()
    paths = []
    monkeypatch.setattr(embedded.frozen_lm, "load", lambda path: paths.append(path) or model)
    model.paths = paths
    return model


def spae_lm(name="default", **arguments):
    return get_model(f"spae-lm/{name}", memoize=False, **arguments)


def test_a_prompt_is_continued_as_it_is(made_up):
    output = ask(
        spae_lm("some/model.gguf"),
        "a dog",
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop_seqs=["\n"],
        logprobs=True,
    )
    assert made_up.paths == ["some/model.gguf"]
    assert [call[:-1] for call in made_up.calls] == [(1, 5, ("\n",), 0.5, 0.9, [3])]
    assert made_up.calls[0][-1] != threading.get_ident()
    assert (output.completion, output.stop_reason, output.model) == (" dog", "stop", "made-up")
    assert (output.usage.input_tokens, output.usage.output_tokens) == (2, 1)
    assert [(one.token, one.logprob) for one in output.choices[0].logprobs.content] == [(" dog", -0.5)]
    assert output.metadata is None


def test_greedy_by_default(made_up):
    assert ask(spae_lm(), "a dog").choices[0].logprobs is None
    assert made_up.calls[0][3:6] == (0.0, 1.0, [0])


def test_choices_begin_with_a_space(made_up):
    output = ask(spae_lm(), "Output:", extra_body=Choices(("hot dog", "cat")).extra_body())
    assert output.completion == " hot dog"
    assert output.stop_reason == "stop"
    assert output.metadata == {"constrained": True}
    output = ask(spae_lm(), "Output:\n", extra_body=Choices(("dog", "cat")).extra_body())
    assert output.completion == "dog"


def test_words_are_tokens_of_the_vocabulary(made_up, monkeypatch):
    monkeypatch.setattr(embedded, "vocabulary_words", lambda bundle: {"tiny": ["cat", "dog"]}[bundle])
    output = ask(spae_lm(), "Output:", extra_body=Words(3, "tiny").extra_body())
    assert output.completion == " cat cat cat"
    assert output.usage.output_tokens == 3
    output = ask(spae_lm(), "Output:", max_tokens=2, extra_body=Words(3, "tiny").extra_body())
    assert output.stop_reason == "max_tokens"


def test_words_by_contrast_are_asked_for_with_the_prompts_that_they_are_against(made_up, monkeypatch):
    monkeypatch.setattr(embedded, "vocabulary_words", lambda bundle: ["cat", "dog"])
    others = ("an image of 7:", "a picture of this other thing:")
    body = Words(3, "tiny", others, 0.5).extra_body()
    output = ask(spae_lm(), "Output:", extra_body=body)
    assert output.completion == " cat cat cat"
    assert (made_up.against, made_up.contrast) == ([list(others)], 0.5)
    assert output.usage.input_tokens == 1 + 4 + 6  # all that were read
    ask(spae_lm(), "Output:", extra_body=Words(3, "tiny").extra_body())
    assert made_up.against == [[]]
    # There has to be room for the answer behind the longest.
    long = Words(3, "tiny", ("word " * 48,), 1.0).extra_body()
    with pytest.raises(InputError, match="a prompt of 49 and max_tokens 3"):
        ask(spae_lm(), "Output:", max_tokens=3, extra_body=long)


def test_no_endpoint_is_asked_for_words_by_contrast(server):
    with pytest.raises(InputError, match="no endpoint tells the probabilities of all words"):
        ask(completions(server, dialect="llama.cpp"), extra_body=Words(3, "x", ("other",)).extra_body())
    assert server.asked == []


def test_words_that_are_several_tokens_of_the_model_are_left_out_and_counted(made_up, monkeypatch, caplog):
    bundles = {"some": ["hot dog", "cat"], "none": ["hot dog", "big cat"]}
    monkeypatch.setattr(embedded, "vocabulary_words", bundles.__getitem__)
    model = spae_lm()
    output = ask(model, "Output:", extra_body=Words(3, "some").extra_body())
    assert output.completion == " cat cat cat"
    assert output.metadata == {"constrained": True, "words_left_out": 1}
    assert "1 of 2 words ('hot dog', ..) are not single tokens of made-up and left out" in caplog.text
    with pytest.raises(InputError, match=r"none of the 2 words .* is a single token of made-up"):
        ask(model, extra_body=Words(3, "none").extra_body())


def together(model, prompts):
    async def calls():
        # The provider's own door: in front of it inspect-ai lets through as many calls as an earlier run allowed.
        return await asyncio.gather(
            *(
                model.api.generate([ChatMessageUser(content=prompt)], [], "none", GenerateConfig(**own))
                for prompt, own in prompts
            ),
            return_exceptions=True,
        )

    return asyncio.run(calls())


def held_until_all_have_come(made_up, model, count):
    """The made-up model does not answer before `count` calls are with it or wait for it."""

    def watch():
        deadline = time.monotonic() + 60
        while len(model.api._waiting) + made_up.given < count and time.monotonic() < deadline:
            time.sleep(0.005)
        made_up.go_on.set()

    made_up.go_on.clear()
    threading.Thread(target=watch, daemon=True).start()
    return model


def test_calls_that_wait_together_are_generated_side_by_side(made_up):
    prompts = [(f"a w{i}", {"max_tokens": 4 if i == 5 else 3}) for i in range(10)]
    model = held_until_all_have_come(made_up, spae_lm(batch=4), 10)
    outputs = together(model, prompts)
    assert [output.completion for output in outputs] == [f" w{i}" for i in range(10)]
    sizes = [call[0] for call in made_up.calls]
    assert sum(sizes) == 10
    assert max(sizes) == 4
    assert len(sizes) <= 5  # the first alone, perhaps; the one with other settings; the rest by fours
    assert sum(call[0] for call in made_up.calls if call[1] == 4) == 1


@pytest.mark.parametrize(("batch", "most"), [(2, 7), (7, 10)])
@pytest.mark.parametrize("scored", [0, 12])
def test_those_with_the_same_context_go_together(made_up, batch, most, scored):
    model = held_until_all_have_come(made_up, spae_lm(batch=batch), 24)
    # Six contexts in turn, of the last calls likelihoods; the first is on its way alone, perhaps, when the others come.
    own = [{}] * (24 - scored) + [{"extra_body": Likelihoods(("one", "big cat")).extra_body()}] * scored
    outputs = together(model, [(f"{'abcdef'[i % 6]} x w{i}", own[i]) for i in range(24)])
    assert [output.completion for output in outputs] == [
        f" w{i}" if i < 24 - scored else " one" for i in range(24)
    ]
    # If two contexts are kept: six are read at least, and 24 in the order of arrival.
    kept, read = [], 0
    for context in [prompt[0] for prompts in made_up.read for prompt in prompts]:
        read += context not in kept
        kept = [*(one for one in kept if one != context), context][-2:]
    assert read <= most


def test_a_failure_reaches_those_who_wait_and_nobody_else(made_up):
    model = spae_lm(batch=1)
    first, second = together(model, [("explode", {}), ("a dog", {})])
    assert isinstance(first, InputError)
    assert second.completion == " dog"


def test_a_real_model_chooses_what_is_likelier():
    path = Path(__file__).parents[2] / "golden" / "frozen_lm" / "llama"
    lm = frozen_lm.load(path)
    prompt, texts = "the quick brown", ("fox", "dog")
    output = ask(
        get_model(f"spae-lm/{path}", memoize=False),
        prompt,
        logprobs=True,
        extra_body=Choices(texts).extra_body(),
    )
    ids = [encode_behind(f" {text}", lm.tokenizer) for text in texts]
    scores = lm.score(lm.encode(prompt), ids)
    found = texts.index(output.completion.strip())
    assert output.completion == f" {texts[found]}"
    content = output.choices[0].logprobs.content
    np.testing.assert_allclose([one.logprob for one in content], scores[found], atol=1e-4)
    # The first token is what is decided on; it is chosen greedily.
    assert scores[found][0] == max(score[0] for score in scores)
    free = ask(get_model(f"spae-lm/{path}", memoize=False), prompt, max_tokens=4)
    (wanted,) = lm.generate([lm.encode(prompt)], 4)
    assert free.completion == wanted.text
    assert free.usage.input_tokens == len(lm.encode(prompt))


def test_a_real_model_tells_how_likely_each_text_is():
    path = Path(__file__).parents[2] / "golden" / "frozen_lm" / "llama"
    lm = frozen_lm.load(path)
    prompt, texts = "the quick brown", ("fox", "lazy dog")
    output = ask(
        get_model(f"spae-lm/{path}", memoize=False), prompt, extra_body=Likelihoods(texts).extra_body()
    )
    wanted = []
    for text in texts:
        ids, behind = lm.encode(prompt), encode_behind(f" {text}\n", lm.tokenizer)
        wanted.append(lm.log_probs(ids + behind)[len(ids) - 1 :].sum())
    np.testing.assert_allclose(output.metadata[LOG_PROBS], wanted, atol=1e-4)
    assert output.completion == f" {texts[int(np.argmax(wanted))]}"


def test_several_choices_have_seeds_of_their_own(made_up):
    output = ask(spae_lm(), "a dog", num_choices=3, seed=7, temperature=1.0)
    assert len(output.choices) == 3
    assert [seed for call in made_up.calls for seed in call[5]] == [7, 8, 9]
    assert output.usage.output_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "config", "wanted"),
    [
        ("a dog", {"top_k": 3}, "does not have top_k"),
        ("a dog", {"logit_bias": {1: 2.0}}, "does not have logit_bias"),
        ("w " * 45, {"max_tokens": 6}, "within 50 tokens; got a prompt of 46 and max_tokens 6"),
        ("a dog", {"extra_body": {"spae": {"words": 0}}}, "whole number of words from 1"),
    ],
)
def test_what_the_model_cannot_do_is_said(made_up, prompt, config, wanted):
    with pytest.raises(InputError, match=wanted):
        ask(spae_lm(), prompt, **config)
    assert not made_up.calls


def test_bad_models_and_arguments(made_up):
    with pytest.raises(InputError, match="no base URL"):
        spae_lm(base_url="http://host/v1")
    with pytest.raises(InputError, match="batch from 1"):
        spae_lm(batch=0)
