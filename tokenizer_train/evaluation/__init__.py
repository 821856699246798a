"""What a tokenizer is worth: `spae-train eval`."""
