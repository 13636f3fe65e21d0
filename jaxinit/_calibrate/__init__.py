"""Weights fitted to data: the scales of layers, and of tensors, before training."""
