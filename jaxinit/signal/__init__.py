"""The signal: how its variance and its gradient's change from layer to layer."""

from jaxinit.signal import theory as theory
