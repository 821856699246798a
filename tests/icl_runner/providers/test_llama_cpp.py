"""Text completions and their constraints with llama.cpp's own server, beside the embedded model on the same file."""

import asyncio

from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model

import icl_runner.providers  # noqa: F401, where the package was installed before it had this entry point
from icl_runner.constraints import Choices, Words
from icl_runner.providers.dialects import vocabulary_words

# Two kinds of things that share no word; the names say nothing of them.
KINDS = {
    "blicket": ("dog cat horse", "cow sheep goat", "horse goat dog"),
    "dax": ("car truck bus", "train bus van", "truck van car"),
}


def episode(asked: str) -> str:
    shown = [(words, name) for name, of_kind in KINDS.items() for words in of_kind[:2]]
    return (
        "".join(f"Input: {words}\nOutput: {name}\n\n" for words, name in shown) + f"Input: {asked}\nOutput:"
    )


def ask(model, prompts, **config):
    async def calls():
        try:
            settings = GenerateConfig(temperature=0.0, **config)
            return [await model.generate([ChatMessageUser(content=one)], config=settings) for one in prompts]
        finally:
            await model.api.aclose()

    return asyncio.run(calls())


def test_the_grammar_holds_answers_to_names_and_words(llama_cpp):
    server = get_model("completions/smollm2", base_url=llama_cpp, dialect="llama.cpp")
    prompts = [episode(words[2]) for words in KINDS.values()]
    answers = ask(server, prompts, max_tokens=8, extra_body=Choices(tuple(KINDS)).extra_body())
    assert {answer.completion.strip() for answer in answers} <= set(KINDS)
    assert all(answer.metadata == {"constrained": True} for answer in answers)
    assert all(answer.stop_reason == "stop" and answer.usage.output_tokens > 0 for answer in answers)

    embedded = ask(
        get_model("spae-lm/default", memoize=False),
        prompts,
        max_tokens=8,
        extra_body=Choices(tuple(KINDS)).extra_body(),
    )
    assert [one.completion.strip() for one in answers] == [one.completion.strip() for one in embedded]

    (drawn,) = ask(
        server, ["Input: dog\nOutput:"], max_tokens=24, extra_body=Words(3, "default").extra_body()
    )
    assert len(drawn.completion.split()) == 3
    assert set(drawn.completion.split()) <= set(vocabulary_words("default"))
