"""Findings, and their faces: text, console, notebook, plot, assertion."""
