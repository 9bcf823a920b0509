"""The spec as functions of flat tensors: what every solver works with."""
