"""One solve over a range of parameters."""
