"""Training of SPAE tokenizers."""
