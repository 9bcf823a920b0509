"""What an economist writes: models, their variables and shocks."""
