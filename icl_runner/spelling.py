"""How `--model` is spelt for each kind of endpoint: told to whoever asked one for what it does not have."""

from collections.abc import Sequence

from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput

from spae.errors import InputError

# For a 404, which says no more than that something is not there.
SPELLINGS = (
    "is the name right, and does the base URL end in /v1? /v1/chat/completions is asked by openai-api/SERVER/NAME or "
    "openai/NAME -M responses_api=false, /v1/responses by openai/NAME -M responses_api=true, /v1/completions by "
    "completions/NAME"
)


async def generate(model: Model, messages: Sequence[ChatMessage], config: GenerateConfig) -> ModelOutput:
    """What the model answers.

    Raises:
        InputError: HTTP 404, with the spellings there are. Else what the provider raises.
    """
    try:
        return await model.generate(list(messages), config=config)
    except Exception as error:
        # openai's errors call it status_code, google-genai's code; ours (`EndpointError`) say all this themselves.
        status = getattr(error, "status_code", None) or getattr(error, "code", None)
        if status != 404:
            raise
        told = " ".join(str(error).split())
        raise InputError(f"{model} was not found by its endpoint ({told}): {SPELLINGS}") from error
