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
