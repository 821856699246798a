"""LLaVA's data factory: a language model that reads captions and boxes writes conversations about images."""
