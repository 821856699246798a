"""The chat door with the published openai client, before a language model's server that does as it is told."""

import asyncio
import base64
import contextlib
import io
import json
import logging
import socket
import time
from urllib.parse import quote

import httpx2
import numpy as np
import openai
import pytest
from fake_tokenizer import load_fake
from fake_upstream import USAGE, FakeUpstream, running, text_answer
from PIL import Image
from some_images import data_url, encoded
from starlette.responses import JSONResponse, RedirectResponse

import spae
from spae.service.app import create_app
from spae.service.errors import ApiError
from spae.service.models.upstream import KEY_VARIABLE, PictureFormat, RemoteModel
from spae.service.settings import Settings

WHITE = "<image> white white white white white </image>"
BLACK = "<image> black black black black black </image>"


def grey(level: int) -> dict:
    buffer = io.BytesIO()
    Image.new("L", (20, 20), level).save(buffer, "PNG")
    return {"type": "image_url", "image_url": {"url": data_url(buffer.getvalue())}}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def user(*parts) -> dict:
    return {"role": "user", "content": list(parts)}


def pixels(part: dict) -> np.ndarray:
    head, data = part["image_url"]["url"].split(",")
    assert (part["type"], head) == ("image_url", "data:image/png;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture(scope="module")
def upstream_server():
    upstream = FakeUpstream()
    with running(upstream.app) as url:
        yield upstream, url


@pytest.fixture
def upstream(upstream_server):
    upstream_server[0].reset()
    return upstream_server[0]


@pytest.fixture(scope="module")
def service(upstream_server):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spae, "load", load_fake)
        patch.delenv(KEY_VARIABLE, raising=False)
        with running(create_app(Settings(upstream=upstream_server[1] + "/v1/"))) as url:
            yield url


@pytest.fixture
def client(service, upstream):
    with openai.OpenAI(base_url=f"{service}/v1", api_key="the-clients-own", max_retries=0) as client:
        yield client


@pytest.fixture
def other_service(upstream, upstream_server, monkeypatch):
    """A function: a client of a service with other settings."""
    monkeypatch.setattr(spae, "load", load_fake)
    with contextlib.ExitStack() as stack:

        def start(key="the-clients-own", **settings):
            app = create_app(Settings(**{"upstream": upstream_server[1] + "/v1", **settings}))
            url = stack.enter_context(running(app))
            return stack.enter_context(openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0))

        yield start


def ask(client, *messages, **more):
    return client.chat.completions.create(model="words-1", messages=list(messages), **more)


def sent(upstream):
    return upstream.asked[-1][0]


def test_an_image_becomes_words(client, upstream):
    answer = ask(client, user(text("What is it?"), grey(255)), temperature=0.5, seed=3, user="ann")
    assert answer.choices[0].message.content == "fine"
    assert answer.choices[0].message.model_extra == {}
    assert answer.usage.model_dump(exclude_none=True) == USAGE
    assert (answer.id, answer.model) == ("chatcmpl-1", "words-1-exactly")
    body = sent(upstream)
    system, question = body.pop("messages")
    assert question == {"role": "user", "content": f"What is it?\n{WHITE}"}
    assert system["role"] == "system"
    assert "1 word for the whole, then 2 x 2 words" in system["content"]
    assert body == {"model": "words-1", "temperature": 0.5, "seed": 3, "user": "ann"}


def test_layers_and_preamble_of_a_request(client, upstream):
    ask(client, user(grey(255)), extra_body={"spae": {"layers": 3, "preamble": "Pictures:"}})
    system, question = sent(upstream)["messages"]
    assert system == {"role": "system", "content": "Pictures:"}
    assert question["content"] == f"<image> {' '.join(['white'] * 21)} </image>"
    ask(client, user(grey(0)), extra_body={"spae": {"layers": 1, "preamble": ""}})
    assert sent(upstream)["messages"] == [{"role": "user", "content": "<image> black </image>"}]


def test_regions_beside_an_image_part(client, upstream):
    regions = [[0, 0, 20, 20], [3, 4, 5.5, 1]]
    ask(client, user(text("What is region 2?"), grey(255) | {"spae": {"regions": regions}}, grey(255)))
    system, question = sent(upstream)["messages"]
    line = "white snow pale mist grey"
    assert question["content"] == (f"What is region 2?\n{WHITE}\nRegion 1: {line}\nRegion 2: {line}\n{WHITE}")
    assert "Regions of a picture stand behind it" in system["content"]
    ask(client, user(grey(255) | {"spae": {"regions": []}}))
    system, question = sent(upstream)["messages"]
    assert question["content"] == WHITE
    assert "Regions" not in system["content"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"regions": [[0, 0, 20, 21]]}, "messages[0].content[0].spae.regions[0]: wanted a box"),
        ({"regions": [[0, 0, 9, 9], [5, 5, 0, 0]]}, "messages[0].content[0].spae.regions[1]: wanted a box"),
        ({"regions": [[9, 9, -5, 5]]}, "spae.regions[0]: wanted a box"),
        ({"regions": [[0, 0, 9]]}, "spae.regions[0]: wanted a box of four numbers"),
        ({"regions": [["a", 0, 9, 9]]}, "spae.regions[0]: wanted a box of four numbers"),
        ({"regions": [[10**400, 0, 9, 9]]}, "spae.regions[0]: wanted numbers of pixels"),
        ({"regions": "all"}, "spae.regions: wanted a list of boxes"),
        ({"regions": [[0, 0, 9, 9]] * 50}, "wanted at most 32 regions"),
        ({"layers": 2}, 'spae: wanted {"regions"'),
        ("regions", 'spae: wanted {"regions"'),
    ],
)
def test_regions_that_are_none(client, upstream, own, message):
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        ask(client, user(grey(255) | {"spae": own}))
    assert message in refused.value.message
    assert upstream.asked == []


def test_a_few_shot_conversation(client, upstream):
    ask(
        client,
        {"role": "system", "content": "Say the colour."},
        user(grey(255)),
        {"role": "assistant", "content": "white"},
        user(grey(0), text("and"), grey(255)),
        {"role": "assistant", "content": "black and white", "images": [grey(0)]},
        user(grey(255), text("?")),
    )
    system, *others = sent(upstream)["messages"]
    assert system["content"].endswith("\n\nSay the colour.")
    assert [message["content"] for message in others] == [
        WHITE,
        "white",
        f"{BLACK}\nand\n{WHITE}",
        f"black and white\n{BLACK}",
        f"{WHITE}\n?",
    ]
    assert {key for message in others for key in message} == {"role", "content"}


def test_a_picture_comes_back(client, upstream):
    upstream.answer = "Here: <image> White snow white black, dusk </image> and <image>greyy</image>."
    message = ask(client, user(text("Draw it."))).choices[0].message
    assert message.content == upstream.answer
    first, second = message.images
    assert (first["index"], second["index"]) == (0, 1)
    # Levels of brightness: white 7, snow 6, black 0, dusk 2; in the middle of their steps of 32.
    expected = np.array([[6, 7], [0, 2]]).repeat(8, 0).repeat(8, 1)[..., None].repeat(3, 2) * 32 + 16
    np.testing.assert_array_equal(pixels(first), expected)
    assert pixels(second).tolist() == np.full((16, 16, 3), 3 * 32 + 16).tolist()
    reports = message.spae["images"]
    assert reports[0]["words"] == "white snow white black dusk"
    assert [repair["kind"] for repair in reports[0]["repairs"]] == ["case", "punctuation"]
    assert (reports[0]["layers"], reports[1]["layers"]) == (2, 1)
    assert reports[1]["repairs"] == [{"kind": "unknown", "position": 0, "found": "greyy", "used": "grey"}]
    assert reports[1]["error"] is None
    # What the client sends back is what the model wrote, not a picture of it.
    ask(client, user(text("Draw it.")), message, user(text("Darker.")))
    assert sent(upstream)["messages"][2] == {"role": "assistant", "content": message.content, "refusal": None}


def test_a_picture_that_cannot_be_drawn(client, upstream):
    upstream.answer = (
        "<image> </image> <image> zzzzzzzz </image> <image> grey </image> " + "<image> grey </image>" * 15
    )
    message = ask(client, user(text("Draw."))).choices[0].message
    assert message.content == upstream.answer
    assert [image["index"] for image in message.images] == list(range(2, 16))
    errors = [report["error"] for report in message.spae["images"]]
    assert "got none" in errors[0]
    assert "zzzzzzzz" in errors[1]
    assert errors[2:16] == [None] * 14
    assert "at most 16" in errors[17]


def test_a_picture_that_breaks_off(client, upstream):
    upstream.answer, upstream.reason = "<image> white black", "length"
    [choice] = ask(client, user(text("Draw."))).choices
    assert choice.finish_reason == "length"
    [report] = choice.message.spae["images"]
    assert (report["layers"], [one["kind"] for one in report["repairs"]]) == (2, ["missing"] * 3)


def test_an_image_is_asked_for(client, upstream):
    ask(client, user(text("Draw.")), modalities=["text", "image"])
    assert "modalities" not in sent(upstream)
    assert sent(upstream)["messages"][0]["content"].endswith("End your answer with a picture.")


def test_several_choices(client, upstream):
    upstream.answer = "<image> grey </image>"
    choices = ask(client, user(text("Draw.")), n=2).choices
    assert [len(choice.message.images) for choice in choices] == [1, 1]


def test_tools_go_through(client, upstream):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    upstream.answer = JSONResponse(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    )
    answer = ask(client, user(grey(0)), tools=tools).choices[0].message
    assert sent(upstream)["tools"] == tools
    assert answer.tool_calls[0].function.name == "look"
    ask(client, user(grey(0)), answer, {"role": "tool", "tool_call_id": "1", "content": "seen"})
    assert sent(upstream)["messages"][2]["tool_calls"] == [call]


def test_a_stream(client, upstream):
    upstream.answer = ["A pic", "ture: <ima", "ge> white bl", "ack </im", "age> a < b", " <image> gre", "y"]
    chunks = list(ask(client, user(grey(0)), stream=True, stream_options={"include_usage": True}))
    assert sent(upstream)["stream"] is True
    assert chunks[-1].usage.model_dump(exclude_none=True) == USAGE
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert deltas[0].role == "assistant"
    pieces = [delta.content for delta in deltas if delta.content]
    assert "".join(pieces) == "".join(upstream.answer)
    assert pieces[:2] == ["A pic", "ture: "]
    assert all(not piece.endswith(("<", "<i", "</im", "<image")) for piece in pieces)
    with_images = [delta for delta in deltas if delta.model_extra]
    assert [delta.images[0]["index"] for delta in with_images] == [0, 1]
    # A picture comes right behind its closing mark.
    assert deltas[deltas.index(with_images[0]) - 1].content.endswith("</image>")
    assert with_images[1].spae["images"][0]["words"] == "grey"
    assert pixels(with_images[0].images[0]).shape == (16, 16, 3)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]


def test_a_stream_gathered_by_the_client(client, upstream):
    upstream.answer = ["One <image> grey </image>", " and <image> snow </image>", "!"]
    with client.chat.completions.stream(model="m", messages=[user(grey(0))]) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    assert message.content == "".join(upstream.answer)
    assert [image["index"] for image in message.images] == [0, 1]
    assert [report["words"] for report in message.spae["images"]] == ["grey", "snow"]


def test_a_stream_without_a_reason_for_its_end(client, upstream):
    upstream.answer, upstream.reason = ["Here <image> grey", " </ima"], None
    deltas = [chunk.choices[0].delta for chunk in ask(client, user(grey(0)), stream=True)]
    assert "".join(delta.content for delta in deltas) == "Here <image> grey </ima"
    assert deltas[-1].images[0]["index"] == 0


def test_a_stream_goes_on_at_once(client, upstream):
    upstream.answer, upstream.pause = ["one ", "two "], 600
    stream = ask(client, user(grey(0)), stream=True)
    # The upstream does not get further than this.
    assert any(chunk.choices[0].delta.content == "one " for chunk in stream)
    stream.close()
    assert upstream.gone.wait(60), "the upstream was not let go"


ERROR = {"error": {"message": "no such model", "type": "x", "param": "model", "code": "model_not_found"}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_errors_of_the_upstream(status, kind, stream, client, upstream):
    upstream.answer = JSONResponse(ERROR, status, {"Retry-After": "7", "Set-Cookie": "a=b"})
    with pytest.raises(kind) as error:
        ask(client, user(grey(0)), stream=stream)
    assert error.value.status_code == status
    assert error.value.body == ERROR["error"]
    assert error.value.response.headers["retry-after"] == "7"
    assert "set-cookie" not in error.value.response.headers


@pytest.mark.parametrize("content", ['{"detail": "too long"}', "<h1>too long</h1>", "[" * 20000 + "too long"])
def test_errors_in_another_shape(content, client, upstream):
    upstream.answer = text_answer("too long" if "[[" in content else content, 413)
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, user(grey(0)))
    assert error.value.status_code == 413
    assert error.value.code == "upstream_error"
    assert "too long" in error.value.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        text_answer("<html>", 200),
        text_answer("[1]", 200),
        text_answer("", 200),
        text_answer("[" * 100_000, 200),
        text_answer("\ud800".encode("utf-8", "surrogatepass"), 200),
        RedirectResponse("http://127.0.0.1:1/"),
    ],
)
def test_an_upstream_that_talks_nonsense(answer, stream, client, upstream):
    upstream.answer = answer
    with pytest.raises(openai.APIError) as error:
        list(ask(client, user(grey(0)), stream=stream))
    assert error.value.code == "upstream_broken"
    assert stream or error.value.status_code == 502


def test_an_upstream_that_is_slow(upstream, upstream_server):
    upstream.pause = 600

    async def asked():
        model = RemoteModel(Settings(upstream=upstream_server[1] + "/v1", timeout_s=0.2))
        try:
            await model.chat({"messages": []}, {}, PictureFormat(1))
        finally:
            await model.close()

    with pytest.raises(ApiError, match=r"within 0\.18 s") as error:
        asyncio.run(asked())
    assert (error.value.status, error.value.code) == (504, "upstream_timeout")


def test_an_upstream_that_is_not_there(other_service):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = other_service(upstream=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as error:
                ask(client, user(grey(0)), stream=stream)
            assert (error.value.status_code, error.value.code) == (502, "upstream_unreachable")
            assert "127.0.0.1" not in error.value.message


def test_a_stream_that_breaks(client, upstream):
    upstream.answer, upstream.cut = ["one ", "two ", "three"], 2
    stream = ask(client, user(grey(0)), stream=True)
    assert "".join(next(stream).choices[0].delta.content for _ in range(3)) == "one two "
    with pytest.raises(openai.APIError) as error:
        next(stream)
    assert error.value.code == "upstream_broken"


def test_an_error_within_a_stream(client, upstream):
    upstream.error = ERROR
    with pytest.raises(openai.APIError, match="no such model"):
        list(ask(client, user(grey(0)), stream=True))


def test_the_clients_key_goes_on_when_nobody_here_asks_for_one(client, upstream):
    ask(client, user(grey(0)))
    assert upstream.asked[-1][1]["authorization"] == "Bearer the-clients-own"
    client.models.list()
    assert upstream.asked[-1][1]["authorization"] == "Bearer the-clients-own"


def test_a_key_of_this_service_stays_here(other_service, upstream, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-this-service\n")
    client = other_service("a-key-of-this-service", api_keys_file=str(keys))
    ask(client, user(grey(0)))
    assert "authorization" not in upstream.asked[-1][1]


def test_the_operators_key(other_service, upstream, monkeypatch, caplog):
    monkeypatch.setenv(KEY_VARIABLE, "the-operators")
    caplog.set_level(logging.DEBUG)
    client = other_service(upstream_model="words-2")
    ask(client, user(grey(255), text("a secret question")))
    assert upstream.asked[-1][1]["authorization"] == "Bearer the-operators"
    assert sent(upstream)["model"] == "words-2"
    upstream.answer = JSONResponse(ERROR, 500)
    with pytest.raises(openai.InternalServerError):
        ask(client, user(grey(255), text("a secret question")))
    ours = "\n".join(str(one.__dict__) for one in caplog.records if one.name.startswith("spae"))
    assert ours
    for secret in ("the-operators", "the-clients-own", "secret", "white", "iVBOR", "no such model"):
        assert secret not in ours


def post(service, body: bytes | str, kind="application/json"):
    headers = {"content-type": kind}
    return httpx2.post(f"{service}/v1/chat/completions", content=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("{", 400),
        ('{"messages": NaN}', 400),
        ("[" * 100_000, 400),
        ("\xff", 400),
        ("[]", 422),
        ("{}", 422),
        ('{"messages": []}', 422),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 422),
        ('{"messages": [{"role": "user", "content": ""}], "spae": {"layers": 9}}', 422),
        ('{"messages": [{"role": "user", "content": ""}], "modalities": 3}', 422),
    ],
)
def test_requests_that_are_none(body, status, service, upstream):
    response = post(service, body.encode("latin-1"))
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert upstream.asked == []


def test_a_page_elsewhere_cannot_ask_in_its_readers_name(service, upstream):
    # Browsers send JSON to other origins only after asking; a form or plain text they send at once.
    assert post(service, '{"messages": [{"role": "user", "content": ""}]}', "text/plain").status_code == 415
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("data:image/png;base64,!!!", 422),
        ("data:image/gif;base64,R0lGODlh", 415),
        (data_url(b"no image"), 415),
        (data_url(encoded()[:100]), 422),
        ("http://localhost/", 422),
        ("http://169.254.169.254/latest/meta-data", 422),
        ("file:///etc/passwd", 422),
        ("", 422),
    ],
)
def test_images_that_are_none(url, status, client, upstream):
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, user(grey(0), part))
    place = "messages[0].content[1]"
    assert (error.value.status_code, error.value.param) == (status, place)
    assert error.value.body["message"].startswith(f"{place}: ")
    assert upstream.asked == []


TURN = {"role": "user", "content": "hello"}
PNG = encoded()
BASE64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/jpg;base64,{BASE64}",
        f"data:image/gif;base64,{BASE64}",
        f"data:application/octet-stream;base64,{BASE64}",
        f"data:text/plain;charset=utf-8;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"DATA:Image/PNG;BASE64,{BASE64}",
        f" data:image/png; base64,{BASE64}\n",
        "data:image/png;base64," + base64.encodebytes(PNG).decode(),
        "data:image/png;base64," + base64.encodebytes(PNG).decode().replace("\n", "\r\n"),
        "data:image/png;base64," + base64.urlsafe_b64encode(PNG).decode(),
        "data:image/png;base64," + BASE64.rstrip("="),
        "data:image/png;base64," + quote(BASE64, safe=""),
        "data:image/png," + quote(PNG),
        BASE64,
    ],
)
def test_the_bytes_say_what_an_image_is(url, client, service, upstream):
    ask(client, user({"type": "image_url", "image_url": {"url": data_url(PNG)}}))
    expected = sent(upstream)["messages"]
    ask(client, user({"type": "image_url", "image_url": {"url": url, "detail": "low"}}))
    assert sent(upstream)["messages"] == expected
    ask(client, user({"type": "input_image", "image_url": url, "detail": "auto"}))
    assert sent(upstream)["messages"] == expected
    assert httpx2.post(f"{service}/v1/tokenize", json={"image": url}).status_code == 200


def test_parts_of_the_responses_interface(client, upstream):
    ask(
        client,
        {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, grey(255)]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "White.", "annotations": []}]},
        user({"type": "input_text", "text": "And now?"}, {"type": "input_audio", "input_audio": {}}),
    )
    *_, question, answer, sound = sent(upstream)["messages"]
    assert (question["content"], answer["content"]) == (f"What is it?\n{WHITE}", "White.")
    # What else there is goes on to a model that may know it.
    assert [part["type"] for part in sound["content"]] == ["text", "input_audio"]


@pytest.mark.parametrize(
    ("messages", "place", "said"),
    [
        ([user(text("a"), {"type": "input_text"})], "messages[0].content[1]", "input_text"),
        ([user({"type": "input_image", "file_id": "f"})], "messages[0].content[0]", "input_image"),
        ([{"role": "user", "content": 5}], "messages[0].content", "the number 5"),
        ([TURN, {"role": "user", "content": ["a"]}], "messages[1].content[0]", 'the string "a"'),
        ([TURN, {"role": "user", "content": "", "images": [text("a")]}], "messages[1].images[0]", '"text"'),
        (
            [TURN, user(text("a"), {"type": "input_image", "image_url": "x:"})],
            "messages[1].content[1]",
            "neither",
        ),
    ],
)
def test_the_place_is_named_as_the_client_counts_it(messages, place, said, client, upstream):
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, *messages)
    assert error.value.status_code == 422
    assert error.value.body["message"].startswith(f"{place}: ")
    assert said in error.value.body["message"]
    assert upstream.asked == []


def test_behind_an_upstream_every_field_goes_on(client, upstream):
    fields = {"top_k": 5, "grammar": "root ::= x", "frob": {"a": [1]}, "stream_options": {"frob": 1}}
    ask(client, user(text("x")), frequency_penalty=0.5, extra_body=fields)
    body = sent(upstream)
    assert {key: body[key] for key in fields} == fields
    assert body["frequency_penalty"] == 0.5
    assert post_json(client, {"messages": [TURN], "temperature": 1e999}) == 400


def post_json(client, body) -> int:
    content = json.dumps(body).replace("Infinity", "1e999")
    return post(str(client.base_url).removesuffix("/v1/"), content).status_code


def test_completions_go_on_to_the_upstream(client, upstream):
    upstream.answer = ["a", " dog"]
    answer = client.completions.create(model="words-1", prompt="It is", extra_body={"grammar": "x"})
    assert answer.choices[0].text == "a dog"
    assert sent(upstream) == {"model": "words-1", "prompt": "It is", "grammar": "x"}
    chunks = client.completions.create(model="words-1", prompt=[1, 2], stream=True)
    assert [chunk.choices[0].text for chunk in chunks] == ["a", " dog", ""]
    upstream.answer = JSONResponse(ERROR, 404)
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError, match="no such model"):
            client.completions.create(model="words-1", prompt="It is", stream=stream)


def test_names_that_the_operator_gives_the_upstreams_model(other_service, upstream):
    client = other_service(upstream_model="words-2", served_model_names=("gpt-4o",))
    for name in ("gpt-4o", "words-2", "default"):
        client.chat.completions.create(model=name, messages=[TURN])
        assert sent(upstream)["model"] == "words-2"
    assert client.models.retrieve("gpt-4o").owned_by == "spae"
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.chat.completions.create(model="gpt-5", messages=[TURN])
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.completions.create(model="gpt-5", prompt="It is")


def test_too_many_images(client, upstream):
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, user(*(grey(level) for level in range(17))))
    assert error.value.status_code == 413
    # The same one again costs nothing.
    ask(client, user(*[grey(7)] * 17))
    assert sent(upstream)["messages"][1]["content"].count("<image>") == 17


def test_half_a_letter_in_an_upstreams_error(service, upstream):
    upstream.answer = text_answer('{"error": {"message": "half \\ud83d"}}', 400)
    assert post(service, json.dumps({"messages": [TURN]})).json()["error"]["message"] == "half \ud83d"


def test_half_a_letter_of_the_model_goes_through(service, upstream):
    upstream.answer = "half \ud83d of it <image> grey\ud83d </image>"
    response = post(service, json.dumps({"messages": [{"role": "user", "content": "\U0001f600"}]}))
    assert response.status_code == 200
    assert sent(upstream)["messages"][1]["content"] == "\U0001f600"
    assert response.json()["choices"][0]["message"]["content"] == upstream.answer


SURROGATE = "half \ud800 of it"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"messages": [TURN, {"role": "user", "content": SURROGATE}]}, "messages[1].content"),
        ({"messages": [{"role": "system", "content": SURROGATE}, TURN]}, "messages[0].content"),
        ({"messages": [user(text("hello"), text(SURROGATE))]}, "messages[0].content[1].text"),
        ({"messages": [TURN], "spae": {"preamble": SURROGATE}}, "spae.preamble"),
        ({"messages": [TURN], "stream": True, "stop": [SURROGATE]}, "stop[0]"),
        ({"messages": [TURN], "metadata": {SURROGATE: "x"}}, "metadata"),
    ],
)
def test_half_a_surrogate_pair_is_no_text(body, place, service, upstream):
    response = post(service, json.dumps(body))
    assert (response.status_code, response.json()["error"]["param"]) == (400, place)
    assert response.json()["error"]["message"].startswith(
        f"{place}: wanted Unicode text; got half a surrogate"
    )
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert post(service, raw).status_code == 400
    assert upstream.asked == []


def test_what_is_counted(client, service, upstream):
    before = httpx2.get(f"{service}/metrics").text
    upstream.answer = JSONResponse(ERROR, 429)
    with pytest.raises(openai.RateLimitError):
        ask(client, user(grey(0)))

    def count(metrics):
        lines = [
            line
            for line in metrics.splitlines()
            if line.startswith('spae_upstream_errors_total{status="429"}')
        ]
        return float(lines[0].split()[-1]) if lines else 0

    assert count(httpx2.get(f"{service}/metrics").text) == count(before) + 1


def test_a_client_that_leaves_is_no_error_of_ours(service, upstream, caplog):
    caplog.set_level(logging.INFO, "spae.service")
    upstream.pause = 600
    host, _, port = service.removeprefix("http://").partition(":")

    def count(status="499") -> float:
        lines = httpx2.get(f"{service}/metrics").text.splitlines()
        left = [one for one in lines if "chat/completions" in one and f'status="{status}"' in one]
        return sum(float(one.split()[-1]) for one in left)

    def leaves(body: bytes, promised: int) -> None:
        before = count()
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {promised}\r\n\r\n".encode() + body)
            while len(body) == promised and not upstream.asked:
                time.sleep(0.01)
        while count() == before:
            time.sleep(0.01)

    body = json.dumps({"messages": [TURN]}).encode()
    failures = count("500")
    leaves(body, len(body))  # while the answer is being written
    assert upstream.gone.wait(60), "the upstream was not let go"
    leaves(body, len(body) + 10)  # before the body is whole
    assert count("500") == failures
    ours = [one for one in caplog.records if one.name == "spae.service"]
    assert {one.levelname for one in ours} == {"INFO"}
    assert [one.facts["status"] for one in ours if one.facts["status"] != 200] == [499, 499]
