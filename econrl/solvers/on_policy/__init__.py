"""Policy-gradient methods that learn from their own rollouts."""
