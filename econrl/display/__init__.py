"""What a person watches: progress and pictures."""
