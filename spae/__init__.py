"""SPAE: images as pyramids of words of a frozen language model, and back."""
