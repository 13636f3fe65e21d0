"""Finds a model's layers in its traced program (its sites) and how they are linked."""
