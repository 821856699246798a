"""Training of connectors (`spae.connector`), by the loop that trains tokenizers."""
