"""Gauss-Newton on the model's own conditions."""
