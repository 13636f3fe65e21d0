"""Weights fitted to data: the scales of layers, by what flows through them."""
