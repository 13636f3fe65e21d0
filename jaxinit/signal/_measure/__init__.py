"""Numbers at the layers of a model, over many seeds."""
