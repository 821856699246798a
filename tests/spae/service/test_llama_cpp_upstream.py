"""The service before llama.cpp's own server: a chat with a picture, a stream, a text to go on with, its models."""

import openai
from fake_tokenizer import load_fake
from fake_upstream import running
from some_images import data_url, encoded

import spae
from spae.service.app import create_app
from spae.service.models.upstream import KEY_VARIABLE
from spae.service.settings import Settings


def test_chat_and_completions(llama_cpp, monkeypatch):
    monkeypatch.setattr(spae, "load", load_fake)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with running(create_app(Settings(upstream=llama_cpp))) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        (model,) = [one.id for one in client.models.list() if "SmolLM2" in one.id]
        parts = [
            {"type": "text", "text": "Say hello."},
            {"type": "image_url", "image_url": {"url": data_url(encoded())}},
        ]
        asked = {
            "model": model,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": 4,
            "temperature": 0,
        }
        answer = client.chat.completions.create(**asked)
        assert answer.choices[0].message.content
        assert 0 < answer.usage.completion_tokens <= 4
        # The words of the picture were read too, and what to do with them.
        assert answer.usage.prompt_tokens > 30
        # Not the same text for certain: the server reads less of a prompt that it has seen, and rounds otherwise.
        chunks = [one for one in client.chat.completions.create(**asked, stream=True) if one.choices]
        assert "".join(one.choices[0].delta.content or "" for one in chunks)
        assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
        text = client.completions.create(
            model=model, prompt="The capital of France is", max_tokens=2, temperature=0
        )
        assert text.choices[0].text == " Paris."
