"""The providers that inspect-ai lacks: `spae-lm/<name or path>`, `spae-connector/<bundle>` and `completions/<model>`.

inspect finds this module by the entry point `inspect_ai` and imports it whenever it starts: so what the
providers themselves need is imported only when one is asked for.
"""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="spae-lm")
def spae_lm() -> type[ModelAPI]:
    """The embedded frozen language model, in JAX: `spae-lm/default`, a GGUF file or Hugging Face folder, or
    one of the hub, `spae-lm/hf:ORG/REPO[/FILE]`."""
    from icl_runner.providers.embedded import EmbeddedAPI

    return EmbeddedAPI


@modelapi(name="spae-connector")
def spae_connector() -> type[ModelAPI]:
    """The same behind a connector, which turns the images of a prompt into soft tokens."""
    from icl_runner.providers.connector import ConnectorAPI

    return ConnectorAPI


@modelapi(name="completions")
def completions() -> type[ModelAPI]:
    """Text completions of an OpenAI-compatible endpoint, `POST {base url}/completions`."""
    from icl_runner.providers.completions import CompletionsAPI

    return CompletionsAPI
