"""Detection by text: instructions with places as whole numbers, what is read of the answers, average precision."""
