"""Temporal-difference methods on the model as a table."""
