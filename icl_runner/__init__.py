"""In-context experiments with the tokenizer's words against frozen language models."""
