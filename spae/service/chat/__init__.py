"""The OpenAI-compatible chat door."""
