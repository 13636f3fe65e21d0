"""Weights fitted to data before training."""
