"""Traced programs (jaxprs): which primitives do what, reading and evaluating them."""
