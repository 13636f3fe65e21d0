"""Whole models: how their parameters are made."""

from jaxinit.model._merged import bind as bind
from jaxinit.model._merged import merged as merged
