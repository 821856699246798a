"""A small labelled data set, and a provider whose answers are a function of the prompt."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("beagle", "fishing boat", "red cup", "tower", "teddy")


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory) -> Path:
    """Five classes of seven images of noise: with class names as words, nobody looks at them."""
    root = tmp_path_factory.mktemp("data") / "toys"
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(7):
            noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(root / name / f"{number}.png")
    return root


class FakeModel:
    """What the provider `fake/<name>` answers; tests set `answer`, and read the prompts that it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[str], str] = lambda prompt: " beagle"
        self.log_prob: Callable[[str, str], float] = lambda prompt, text: -1.0
        self.prompts: list[str] = []
        self.systems: list[str] = []
        self.contents: list = []
        self.configs: list = []


_state = FakeModel()


@pytest.fixture
def fake_model(monkeypatch) -> FakeModel:
    """The provider `fake`, which takes constraints (and does not keep them)."""
    from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi

    from icl_runner import constraints

    # One state for all tests: inspect keeps a model that it has made.
    _state.__init__()

    class FakeAPI(ModelAPI):
        async def generate(self, input, tools, tool_choice, config: GenerateConfig) -> ModelOutput:
            prompt = input[-1].text
            _state.prompts.append(prompt)
            _state.contents += [message.content for message in input]
            _state.systems += [message.text for message in input if message.role == "system"]
            _state.configs.append(config)
            output = ModelOutput.from_content(self.model_name, _state.answer(prompt))
            asked = constraints.from_extra_body(config.extra_body)
            if isinstance(asked, constraints.Likelihoods):
                output.metadata = {constraints.LOG_PROBS: [_state.log_prob(prompt, t) for t in asked.texts]}
            output.usage = ModelUsage(input_tokens=len(prompt.split()), output_tokens=2, total_tokens=0)
            return output

        def should_retry(self, ex: Exception) -> bool:
            return False

    modelapi(name="fake")(lambda: FakeAPI)
    monkeypatch.setattr(constraints, "_PROVIDERS", ("spae-lm", "completions", "fake"))
    return _state


@pytest.fixture
def streams_collected() -> Iterator[None]:
    """inspect-ai leaves streams of its own open at the end of a run: collected where a mark ignores the warning."""
    yield
    gc.collect()
