"""The chat door with clients other people wrote: curl and the openai client as the README has them, and inspect-ai."""

import asyncio
import base64
import io
import json
import shutil
import subprocess

import pytest
from fake_tokenizer import load_fake
from fake_upstream import FakeUpstream, running
from PIL import Image
from some_images import data_url, encoded

import spae
from icl_runner.providers.retries import EndpointError
from spae.errors import InputError
from spae.service.app import create_app
from spae.service.settings import Settings

ADDRESS = "http://127.0.0.1:8000"

PYTHON = """
import base64
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
photo = "data:image/jpeg;base64," + base64.b64encode(open("dog.jpg", "rb").read()).decode()
question = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": photo}}]
answer = client.chat.completions.create(model="default", messages=[{"role": "user", "content": question}])
print(answer.choices[0].message.content)
"""

CURL = r"""
curl -s http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d @- <<EOF
{"model": "default", "messages": [{"role": "user", "content": [
  {"type": "text", "text": "What is this?"},
  {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,$(base64 < dog.jpg | tr -d '\n')"}}]}]}
EOF
"""


@pytest.fixture(scope="module")
def service():
    upstream = FakeUpstream()
    with pytest.MonkeyPatch.context() as patch, running(upstream.app) as url:
        patch.setattr(spae, "load", load_fake)
        with running(create_app(Settings(upstream=f"{url}/v1"))) as own:
            upstream.address = own
            yield upstream


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dog.jpg").write_bytes(encoded((300, 200), "JPEG"))
    return tmp_path


def words(upstream):
    """What the language model was shown in the last request."""
    return upstream.asked[-1][0]["messages"][-1]["content"]


def test_python_as_in_the_readme(service, folder, monkeypatch, capsys):
    service.reset()
    service.answer = "a dog"
    monkeypatch.chdir(folder)
    exec(
        PYTHON.replace(ADDRESS, service.address).replace('open("dog.jpg", "rb").read()', "photo_bytes()"),
        {"photo_bytes": (folder / "dog.jpg").read_bytes},
    )
    assert capsys.readouterr().out == "a dog\n"
    assert words(service).startswith("What is this?\n<image> ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_in_the_readme(service, folder):
    service.reset()
    service.answer = "Here: <image> white </image>"
    done = subprocess.run(
        ["bash", "-c", CURL.replace(ADDRESS, service.address)],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=60,
    )
    message = json.loads(done.stdout)["choices"][0]["message"]
    assert message["content"] == service.answer
    png = base64.b64decode(message["images"][0]["image_url"]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(png)).size == (16, 16)
    assert words(service).startswith("What is this?\n<image> ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_stream_with_curl(service):
    service.reset()
    service.answer = ["one ", "two"]
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "count"}]})
    done = subprocess.run(
        [
            "curl",
            "-sN",
            f"{service.address}/v1/chat/completions",
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
        ],
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    *events, last = done.stdout.removesuffix("\n\n").split("\n\n")
    assert last == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "one two"


def test_inspect_ai(service):
    from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, GenerateConfig, get_model

    service.reset()
    service.answer = "a square"

    async def ask():
        model = get_model(
            "openai-api/spae/words-1", base_url=f"{service.address}/v1", api_key="none", memoize=False
        )
        async with model:
            content = [ContentText(text="What is this?"), ContentImage(image=data_url(encoded()))]
            config = GenerateConfig(temperature=0, extra_body={"spae": {"layers": 1}})
            return await model.generate([ChatMessageUser(content=content)], config=config)

    output = asyncio.run(ask())
    assert output.completion == "a square"
    assert output.usage.total_tokens == 18
    assert words(service).startswith("What is this?\n<image> ")
    assert len(words(service).split()) == 6
    assert service.asked[-1][0]["temperature"] == 0


# Of docs/in_context.md: --model, the variable of the base URL, that of the key, and arguments (-M).
SPELLINGS = [
    ("openai/gpt-4o", "OPENAI_BASE_URL", "OPENAI_API_KEY", {}),
    ("openai/o3", "OPENAI_BASE_URL", "OPENAI_API_KEY", {"responses_api": False}),
    ("openai-api/my-server/words-1", "MY_SERVER_BASE_URL", "MY_SERVER_API_KEY", {}),
    ("vllm/words-1", "VLLM_BASE_URL", "VLLM_API_KEY", {}),
    ("ollama/words-1", "OLLAMA_BASE_URL", None, {}),
    ("llama-cpp-python/words-1", "LLAMA_CPP_PYTHON_BASE_URL", None, {}),
    ("completions/words-1", "SPAE_COMPLETIONS_BASE_URL", "SPAE_COMPLETIONS_API_KEY", {}),
]


def put(spelling, address, monkeypatch, **arguments):
    """What `spae-icl` gets for an answer to one question; the base URL and the key come from the environment."""
    from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model

    import icl_runner.providers  # noqa: F401
    from icl_runner.spelling import generate

    name, base_url, key, given = spelling
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(base_url, f"{address}/v1")
    if key:
        monkeypatch.setenv(key, "none")

    async def ask():
        model = get_model(name, memoize=False, **given | arguments)
        async with model:
            config = GenerateConfig(max_tokens=9, temperature=0, max_retries=0)
            return await generate(model, [ChatMessageUser(content="What is this?")], config)

    return asyncio.run(ask())


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling[0])
def test_every_spelling_of_a_model_reaches_the_service(service, monkeypatch, spelling):
    service.reset()
    service.answer = "a square"
    assert put(spelling, service.address, monkeypatch).completion == "a square"
    assert len([body for body, _ in service.asked if body]) == 1  # vLLM's asks for the models, too


def test_a_404_says_which_spelling_to_use(service, monkeypatch):
    with pytest.raises(InputError, match=r"/v1/chat/completions is asked by .* -M responses_api=false"):
        put(SPELLINGS[0], service.address, monkeypatch, responses_api=True)
    with pytest.raises(InputError, match=r"does the base URL end in /v1\?"):
        put(SPELLINGS[2], f"{service.address}/elsewhere", monkeypatch)
    with pytest.raises(EndpointError, match=r"/v1/completions is asked by|does the base URL end in /v1\?"):
        put(SPELLINGS[-1], f"{service.address}/elsewhere", monkeypatch, retry_base=0.001)
