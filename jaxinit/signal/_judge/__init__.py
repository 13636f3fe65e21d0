"""Judges numbers: finds what is wrong with a model, why, and what to change."""
