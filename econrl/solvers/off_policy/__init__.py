"""Actor-critic and Q-learning methods that learn from a replay buffer."""
