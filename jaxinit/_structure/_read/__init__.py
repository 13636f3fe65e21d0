"""Reads a traced program: facts of its values, and uses of its parameters."""
