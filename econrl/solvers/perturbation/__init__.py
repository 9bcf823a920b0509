"""Expansions around the deterministic steady state."""
