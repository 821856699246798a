"""Few-shot episodes: drawn, or from files; and made-up names for their classes."""
