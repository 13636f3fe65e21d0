"""Models of Linen, NNX, Equinox, Haiku and plain functions, in one form.

The only room that knows how each framework makes a model, and how it calls one.
"""
