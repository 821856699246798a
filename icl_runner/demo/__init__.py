"""`spae-icl demo`: a few experiments with what is shipped, and a page of them."""
