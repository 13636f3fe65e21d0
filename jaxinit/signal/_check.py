"""`check`: signal and gradient of a model at initialisation."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit import _check as check_that
from jaxinit.signal._measure import measure
from jaxinit.signal._model import adapt
from jaxinit.signal._report import SignalReport
from jaxinit.signal._verdict import judge


def check(
    model: Any,
    x: Any,
    *,
    key: jax.Array,
    seeds: int = 32,
    loss: Callable[[Any], Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    streams: tuple[str, ...] = ("dropout",),
    limit: float = 100.0,
    jacobian: int = 4,
    chunk: int | None = None,
) -> SignalReport:
    """Measures signal and gradient at every layer, over many seeds, and judges them.

    One program draws the weights, runs the model forwards and backwards and keeps
    statistics of each layer; it is compiled once. A layer is a matrix product or
    convolution of data with a weight, its bias included; modules of Flax have rows too.
    The model itself is not changed, and nothing is stored in it.

    Args:
      model: a Flax Linen module; a Flax NNX class, or a function that takes
        ``nnx.Rngs`` and returns a model; or a pair of functions (init, apply) with
        ``params = init(key)`` and ``output = apply(params, x)``.
      x: what the model is called with: an array, its first axis over examples, or a
        tuple of such for several inputs. Integers (tokens) have no gradient.
      key: the PRNG key of all seeds.
      seeds: how many times the weights are drawn.
      loss: computes a number from the model's output, whose gradient is measured; by
        default the sum of the output times random normal numbers.
      arguments: keywords of the call, such as ``{"train": False}``.
      streams: names of the random streams that the call needs beside ``params``.
      limit: the factor over all layers by which a signal or gradient vanishes or
        explodes.
      jacobian: the number of seeds of which singular values of the output by the input
        are computed, for one example; 0 for none.
      chunk: seeds at a time, on a CPU for each of two threads; by default one there,
        and eight elsewhere.

    Returns:
      A `SignalReport`: it prints as a table, and has ``findings`` with cures.

    Raises:
      ValueError: if an argument is out of range, or no layer is found.
      TypeError: if the model, the key or an input is none. A model that fails raises
        its own error.

    Example:
      >>> import flax.linen as nn
      >>> layers = [f for _ in range(20) for f in (nn.Dense(64), nn.relu)]
      >>> x = jax.random.normal(jax.random.key(1), (16, 64))
      >>> report = jaxinit.check(nn.Sequential(layers), x, key=jax.random.key(0), seeds=2)
      >>> report.condition
      'vanishing'

    References:
      Schoenholz, Gilmer, Ganguli, Sohl-Dickstein. Deep Information Propagation. 2017. https://arxiv.org/abs/1611.01232
    """  # noqa: E501
    try:
        check_that.key(key)
        check_that.at_least(1, seeds=seeds)
        check_that.at_least(0, jacobian=jacobian)
        if chunk is not None:
            check_that.at_least(1, chunk=chunk)
        if check_that.real(limit=limit) <= 1:
            raise check_that.Unfit("limit must be above 1.", limit=limit)
        _check_loss(loss)
        inputs = _inputs(x)
        adapted = adapt(model, inputs, arguments or {}, tuple(streams))
        run = measure(adapted, inputs, key, seeds, loss, chunk, min(jacobian, seeds))
    except check_that.Unfit as error:
        raise error.at("check", "model", "x") from None
    layers, findings = judge(run.layers, limit)
    return SignalReport(layers, findings, seeds, run.jacobian, run.loss, limit)


def _check_loss(loss: Any) -> None:
    if loss is not None and not callable(loss):
        rule = "loss must be a function of the output."
        raise check_that.Unfit(rule, TypeError, loss=loss)


def _inputs(x: Any) -> tuple[jax.Array, ...]:
    """Returns the inputs as arrays."""
    many = x if isinstance(x, tuple) else (x,)
    found = []
    for one in many:
        try:
            found.append(jnp.asarray(one))
        except TypeError:
            rule = "x must be an array, or a tuple of arrays for several inputs."
            raise check_that.Unfit(rule, TypeError, x=one) from None
    return tuple(found)
