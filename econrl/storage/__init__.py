"""Solutions and checkpoints on disk, and models by their names."""
