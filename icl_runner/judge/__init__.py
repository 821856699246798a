"""A language model as the judge of answers about images: LLaVA-Bench's relative score, ViP-Bench's score."""
