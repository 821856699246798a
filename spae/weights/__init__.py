"""Weights on disk: files of packages, of PyTorch, of safetensors, into the parameters of a network."""
