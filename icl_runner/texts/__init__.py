"""Tasks whose answers are short texts: what they share, and how they are put to a model."""
