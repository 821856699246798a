"""The models that answer: behind a URL, or embedded."""
