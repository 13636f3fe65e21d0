"""Measures the layers of a model, over many seeds."""
