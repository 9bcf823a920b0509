"""Fitted value iteration: exact maxima and slopes at sampled states, and networks fitted to them."""
