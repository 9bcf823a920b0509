"""What agents of other libraries see of a model."""
