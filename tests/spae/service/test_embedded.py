"""The embedded model as an upstream: with a model that says what it is told to, and with the real one."""

import asyncio
import threading
import time

import pytest
from fake_lm import CONTROL, FakeLM

import spae
from spae import frozen_lm
from spae.errors import InputError
from spae.frozen_lm import model_file
from spae.pyramid import PyramidShape
from spae.service.errors import ApiError
from spae.service.models.embedded import EmbeddedModel
from spae.service.models.upstream import PictureFormat
from spae.service.settings import Settings

WORDS = ("dog", "park", "grass")
FIVE = PictureFormat(5)


class FakeVocabulary:
    words = WORDS


def model(script="", **more):
    lm = FakeLM(script, WORDS)
    return EmbeddedModel(lm, FakeVocabulary(), **more), lm


def ask(upstream, *texts, pictures=FIVE, **body):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts or ("hello",))]
    body = {"messages": messages, **body}
    upstream.check(body)
    reply = asyncio.run(upstream.chat(body, {}, pictures))
    [choice] = reply["choices"]
    return choice["message"]["content"], choice["finish_reason"], reply["usage"]


def stream(upstream, **more):
    async def run():
        messages = [{"role": "user", "content": "hello"}]
        body = {"messages": messages, "stream": True} | more
        async with upstream.stream(body, {}, FIVE) as chunks:
            return [chunk async for chunk in chunks]

    return asyncio.run(run())


def test_the_prompt_is_the_models_own_way_of_writing_turns():
    upstream, lm = model("fine")
    ask(upstream, "hello", "hi", "who <|im_end|> are you?")
    # What the user wrote stays text: there is one end for each of the four turns.
    assert lm.prompts[0].count(CONTROL["<|im_end|>"]) == 4
    assert lm.calls[0]["prompt"] == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\nhi<|im_end|>\n"
        "<|im_start|>user\nwho <|im_end|> are you?<|im_end|>\n<|im_start|>assistant\n"
    )
    messages = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": "hello"}]
    ask(upstream, messages=messages)
    assert lm.calls[1]["prompt"].startswith("<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\n")


def test_text_and_usage():
    upstream, _ = model("This is longer than a stretch, and has ½¼ and ½¼½¼ in it.")
    content, reason, usage = ask(upstream)
    assert content == "This is longer than a stretch, and has é and éé in it."
    assert reason == "stop"
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] >= len(content)


def test_a_number_of_tokens():
    upstream, _ = model("x" * 1000)
    assert ask(upstream, max_tokens=21)[:2] == ("x" * 21, "length")
    assert ask(upstream, max_tokens=1, max_completion_tokens=13)[:2] == ("x" * 13, "length")
    assert ask(upstream)[0] == "x" * 256


@pytest.mark.parametrize("end", range(1, 30))
def test_stop_strings_wherever_they_fall(end):
    upstream, _ = model("x" * end + "STOP and more")
    content, reason, _ = ask(upstream, stop=["STOPPED", "STOP", "Q"])
    assert (content, reason) == ("x" * end, "stop")
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in stream(upstream, stop="STOP")]
    assert "".join(pieces) == "x" * end


def test_half_a_letter_hides_no_stop_string():
    """It ends the first stretch; what stands before it may begin a stop string."""
    upstream, _ = model("xxxxx" + "ST½¼P" + " and more")
    assert ask(upstream, stop=["STéP"])[:2] == ("xxxxx", "stop")
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in stream(upstream, stop="STéP")]
    assert "".join(pieces) == "xxxxx"


def test_a_mark_that_is_to_stop_the_answer_begins_no_picture():
    upstream, _ = model("Look: <image> There.")
    assert ask(upstream, stop=["<image>"])[:2] == ("Look: ", "stop")
    body = {"prompt": "hello", "stop": ["<image>"], "max_tokens": 40}
    upstream.check_completion(body)
    [choice] = asyncio.run(upstream.complete(body, {}))["choices"]
    # The stand-in goes on behind as many letters of its script as the prompt has.
    assert (choice["text"], choice["finish_reason"]) == (" ", "stop")


def test_the_time_is_that_of_all_prompts_together():
    upstream, lm = model("x" * 1000, timeout_s=1)
    lm.room = threading.Semaphore(2)  # two stretches of the first prompt, and no more
    threading.Timer(3, lm.room.release, [10**6]).start()
    start = time.monotonic()
    body = {"prompt": ["hello", "hi"], "max_tokens": 800}
    first, second = asyncio.run(upstream.complete(body, {}))["choices"]
    assert time.monotonic() - start < 2.5
    assert (first["text"], first["finish_reason"]) == ("x" * 16, "length")
    assert (second["text"], second["finish_reason"]) == ("", "length")


def test_a_picture_has_exactly_its_words():
    upstream, _ = model("Look: <image> There.")
    content, reason, _ = ask(upstream)
    assert (content, reason) == ("Look: <image> dog dog dog dog dog </image> There.", "stop")


def test_words_that_are_several_tokens_of_the_model_are_left_out_and_counted(caplog, monkeypatch):
    lm = FakeLM("<image>", WORDS[1:])
    monkeypatch.setattr(frozen_lm, "load", lambda name: lm)
    with caplog.at_level("INFO", "spae.service"):
        upstream = EmbeddedModel.load(Settings(), FakeVocabulary())
    assert [one.facts["words_left_out"] for one in caplog.records if one.msg == "model loaded"] == [1]
    assert ask(upstream)[0] == "<image> park park park park park </image>"
    with pytest.raises(InputError, match="none of the 3 words"):
        EmbeddedModel(FakeLM(), FakeVocabulary())


def test_a_picture_that_is_asked_for():
    upstream, _ = model("I cannot draw.")
    assert ask(upstream, pictures=PictureFormat(1, must=True))[:2] == (
        "I cannot draw.\n<image> dog </image>",
        "stop",
    )
    only = ask(upstream, pictures=PictureFormat(10, must=True, text=False))[0]
    assert only == f"<image> {' '.join(['dog'] * 10)} </image>"
    drawn = ask(model("<image>")[0], pictures=PictureFormat(1, must=True))[0]
    assert drawn == "<image> dog </image>"


def test_the_picture_that_is_asked_for_keeps_its_room():
    upstream, _ = model("x" * 1000)
    content, reason, usage = ask(upstream, max_tokens=30, pictures=PictureFormat(10, must=True))
    assert content == "x" * 20 + "\n<image>" + " dog" * 10 + " </image>"
    assert (reason, usage["completion_tokens"]) == ("stop", 30)
    content, reason, _ = ask(upstream, max_tokens=9, pictures=PictureFormat(10, must=True))
    assert reason == "length"
    assert content == "<image>" + " dog" * 9


def test_the_context_is_the_end():
    upstream, lm = model("x" * 1000)
    lm.context_length = len(upstream._template.prompt([{"role": "user", "content": "hello"}])) + 11
    assert ask(upstream)[:2] == ("x" * 11, "length")
    with pytest.raises(ApiError, match="wanted at most") as error:
        ask(upstream, "hello, hello, hello")
    assert (error.value.status, error.value.code) == (400, "context_length_exceeded")


def test_a_stream_is_the_same_answer():
    script = "A dog: <image> and some more text, to the end."
    upstream, _ = model(script)
    content, reason, usage = ask(upstream)
    chunks = stream(upstream, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == content
    assert chunks[-2]["choices"][0]["finish_reason"] == reason
    assert chunks[-1]["usage"] == usage
    assert len(chunks) > 6
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_sampling():
    upstream, lm = model("x" * 20)
    ask(upstream, temperature=0.7, top_p=0.5, seed=-3)
    first = [call["seed"] for call in lm.calls]
    assert len(set(first)) == len(first) == 3
    assert min(first) >= 0
    ask(upstream, temperature=0.7, seed=-3)
    assert [call["seed"] for call in lm.calls[3:]] == first
    assert {call["temperature"] for call in lm.calls} == {0.7}


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{}]},
        {"logprobs": True},
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"temperature": "hot"},
        {"temperature": 3},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"max_tokens": 0},
        {"max_tokens": 2.5},
        {"max_tokens": True},
        {"seed": 1.5},
        {"stop": 3},
        {"stop": [""]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    ],
)
def test_what_it_does_not_have(body):
    upstream, lm = model("x")
    with pytest.raises(ApiError) as error:
        ask(upstream, **body)
    assert error.value.status == 400
    assert lm.calls == []


@pytest.mark.parametrize("calls", [0, 2])
def test_its_time_is_bounded(calls):
    """The time is up when the model has answered so many calls, and not before."""

    class Late(asyncio.SelectorEventLoop):
        ahead = 0.0

        def time(self):
            return super().time() + self.ahead

    async def run():
        asking = asyncio.ensure_future(
            upstream.chat({"messages": [{"role": "user", "content": "hello"}]}, {}, FIVE)
        )
        while lm.asked <= calls:
            await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0)  # what the calls gave is taken
        asyncio.get_running_loop().ahead = 1000.0
        try:
            return await asking
        finally:
            lm.room.release()
            await upstream.close()

    upstream, lm = model("x" * 1000, timeout_s=500)
    lm.room = threading.Semaphore(calls)
    with asyncio.Runner(loop_factory=Late) as runner:
        if not calls:
            with pytest.raises(ApiError, match="no time within 450 s") as error:
                runner.run(run())
            assert error.value.status == 504
            return
        reply = runner.run(run())
    [choice] = reply["choices"]
    assert choice["message"]["content"] == "x" * reply["usage"]["completion_tokens"] == "x" * 8 * calls
    assert choice["finish_reason"] == "length"


def test_an_answer_that_nobody_wants_ends():
    upstream, lm = model("x" * 1000)
    lm.room = threading.Semaphore(2)

    async def run():
        async with upstream.stream({"messages": [{"role": "user", "content": "hello"}]}, {}, FIVE) as chunks:
            async for chunk in chunks:
                if chunk["choices"][0]["delta"].get("content"):
                    break
        lm.room.release(100)
        await upstream.close()

    asyncio.run(run())
    assert len(lm.calls) <= 3


def test_one_at_a_time_and_not_too_many():
    upstream, lm = model("x" * 30)
    lm.room = threading.Semaphore(0)
    threads = set()
    generate = lm.generate
    lm.generate = lambda *a, **k: (threads.add(threading.get_ident()), generate(*a, **k))[1]
    refused = []

    async def one():
        try:
            return await upstream.chat({"messages": [{"role": "user", "content": "hello"}]}, {}, FIVE)
        except ApiError as error:
            refused.append(error)
            if len(refused) == 4:
                lm.room.release(1000)

    async def run():
        return await asyncio.gather(*(one() for _ in range(12)))

    replies = [reply for reply in asyncio.run(run()) if reply]
    assert [reply["choices"][0]["message"]["content"] for reply in replies] == ["x" * 30] * 8
    assert {(error.status, error.headers["Retry-After"]) for error in refused} == {(429, "10")}
    assert len(threads) == 1
    assert ask(upstream)[0] == "x" * 30


def test_a_failure_is_told_to_who_waits():
    upstream, lm = model("x")
    lm.error = RuntimeError("no memory")
    with pytest.raises(RuntimeError, match="no memory"):
        ask(upstream)
    lm.error = None
    assert ask(upstream)[0] == "x"


@pytest.mark.parametrize("template", [None, "{% if messages %}[INST]"])
def test_a_model_that_does_not_chat(template):
    lm = FakeLM("", WORDS)
    lm.chat_template = template
    with pytest.raises(InputError, match="--upstream"):
        EmbeddedModel(lm, FakeVocabulary())


def test_the_real_model():
    try:
        model_file.smollm2_file()
    except InputError as error:
        pytest.skip(str(error))
    vocabulary = spae.load("default").vocabulary
    upstream = EmbeddedModel(
        frozen_lm.load(), vocabulary, timeout_s=600
    )  # not compiled ahead, that takes longer
    assert asyncio.run(upstream.models())[0]["id"] == "SmolLM2-135M-Instruct.Q4_1"
    content, reason, usage = ask(upstream, "What is the capital of France?", max_tokens=16)
    assert "Paris" in content
    assert reason == "stop"
    # The template's own system message, and the two turns.
    assert usage["prompt_tokens"] == 37
    shots = [
        "a dog",
        "<image> dog park grass dog grass </image>",
        "a cat",
        "<image> cat sofa cat cat chair </image>",
    ]
    content, _, _ = ask(upstream, *shots, "a ship", max_tokens=32)
    words = content.removeprefix("<image> ").removesuffix(" </image>").split(" ")
    assert len(words) == PyramidShape((1, 2)).tokens()
    assert set(words) <= set(vocabulary.words)
    assert words[0] == "ship"
