"""`check`: measures and judges signal and gradient of a model at initialization."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxinit import _check as check_that
from jaxinit import _placement
from jaxinit._adapt.adapt import adapt
from jaxinit._adapt.functions import Model, bind_axes, of_arrays
from jaxinit._adapt.inputs import (
    read_inputs,
    read_keywords,
    read_names,
)
from jaxinit.signal._judge.judge import judge
from jaxinit.signal._judge.verdicts import LIMIT
from jaxinit.signal._measure._descent import Training, read_training
from jaxinit.signal._measure._given import fix_weights
from jaxinit.signal._measure.seeds import Run, disable_checks, measure
from jaxinit.signal._report.report import SignalReport
from jaxinit.signal.progress import report_progress


def check(
    model: Any,
    x: Any,
    *,
    key: jax.Array,
    seeds: int = 32,
    loss: Callable[[Any], Any] | None = None,
    params: Any = None,
    steps: int = 0,
    optimizer: Any = None,
    arguments: Mapping[str, Any] | None = None,
    streams: str | Sequence[str] = ("dropout",),
    axis_name: str | Sequence[str] = (),
    limit: float = LIMIT,
    jacobian: int = 4,
    chunk: int | None = None,
) -> SignalReport:
    """Measures signal and gradient at every layer, over many seeds, and judges them.

    Weights are drawn by `jit_init`; one program runs the model forwards and backwards,
    and statistics of each layer are taken of what flows through it. The program is
    compiled once in a process, whatever the key, the seeds and the initializer. A layer
    is a matrix product or convolution of data with a weight, its bias included; Flax
    modules have rows too.
    The model itself does not change, and nothing is stored in it.

    A call that takes over two seconds reports its progress on a terminal or in a
    notebook.

    Args:
      model: a Flax Linen module; a class of Flax NNX or Equinox, a `functools.partial`
        of one, or a function that makes a model from ``nnx.Rngs`` or a key; a pair of
        functions (init, apply) with ``params = init(key)``, or ``init(key, *x)``, and
        ``output = apply(params, *x)``; the result of Haiku's ``hk.transform``. An
        Equinox model is mapped over the examples.
      x: the input: an array whose first axis is over examples, any pytree of such
        arrays, or a plain tuple of these for several inputs. Integers (tokens) have no
        gradient; True, False and None stay as they are.
      key: the PRNG key of all seeds.
      seeds: how many times the weights are drawn.
      loss: computes a number from the model's output; its gradient is measured. By
        default it is the sum of the output times random normal numbers. A cross-entropy
        is also compared with that of guessing.
      params: weights to check as they are, loaded or trained, in place of drawn ones:
        variables or parameters of Linen, a model or state of NNX, a module of Equinox,
        any tree with the paths of the model's own. The model may then be one of NNX or
        Equinox that is built: ``check(model, x, params=model, key=key)``. Seeds differ
        in noise and in the random numbers behind the gradient: a few suffice.
      steps: how many steps of the optimizer are then taken on x, from the weights of
        the first four seeds: the report tells how the loss falls, beside that of
        guessing, and how large each layer's update is beside its weight. This needs a
        loss; what it compares the output with, such as labels, it has from where it is
        defined. What else the model stores stays as it is.
      optimizer: one of optax, or another pair of functions ``init`` and ``update`` as
        optax has them.
      arguments: keywords of the call, such as ``{"train": False}``.
      streams: names of the random streams that the call needs beside ``params``.
      axis_name: the name of an axis that the model reads, such as the ``axis_name`` of
        a BatchNorm, or several names; each is bound to size 1, as on one device.
      limit: the factor over all layers, above 1, beyond which a signal or gradient
        vanishes or explodes.
      jacobian: the number of seeds for which the singular values of the Jacobian of
        output by input are computed, at one example; 0 computes none.
      chunk: the number of seeds that run at a time, on a CPU in each of two threads; by
        default 1 there, and 8 elsewhere.

    Returns:
      A `SignalReport`: it prints as a table, and has ``findings`` with cures.

    Raises:
      ValueError: if an argument is out of range, no layer is found, or the model reads
        an axis that is not bound.
      TypeError: if an argument has the wrong type. A model that fails raises its own
        error.

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
        key = _placement.release(check_that.key(key))
        check_that.at_least(1, seeds=seeds)
        check_that.at_least(0, jacobian=jacobian)
        if chunk is not None:
            check_that.at_least(1, chunk=chunk)
        if check_that.real(limit=limit) <= 1:
            raise check_that.Unfit("limit must be above 1.", limit=limit)
        _check_loss(loss)
        training = read_training(steps, optimizer, loss)
        keywords = read_keywords(arguments)
        noise, axes = read_names(streams=streams), read_names(axis_name=axis_name)
        # In a mesh of explicit axes JAX writes shardings into types; the programs made
        # from parts of the model do without.
        inputs = jax.tree.map(_placement.untyped, read_inputs(x))
        with (
            disable_checks(),
            _placement.automatic(),
            report_progress("jaxinit.check") as say,
        ):
            built = params is not None
            adapted = bind_axes(adapt(model, inputs, keywords, noise, built), axes)
            if built:
                adapted = fix_weights(adapted, params, key)
            rest = key, seeds, loss, chunk, min(jacobian, seeds), say, training
            run = _measure_arrays(adapted, inputs, *rest)
            say("judging")
            framework, paths = adapted.framework(), run.program.paths
            layers, findings = judge(run.layers, limit, run.gains, framework, paths)
    except check_that.Unfit as error:
        raise error.at("check", "model", "x") from None
    descent, program = run.descent, run.program
    updates = descent.list_updates(run.layers) if descent else itertools.repeat(None)
    layers = tuple(
        dataclasses.replace(layer, updates=each, role=program.find_role(measured.site))
        for layer, measured, each in zip(layers, run.layers, updates, strict=False)
    )
    return SignalReport(
        layers=layers,
        findings=findings,
        seeds=seeds,
        jacobian=run.jacobian,
        loss=run.loss,
        limit=limit,
        unseen=program.unseen,
        training=descent.losses if descent else {},
        structure=program.read_structure(),
    )


def _measure_arrays(
    model: Model,
    inputs: tuple[Any, ...],
    key: jax.Array,
    seeds: int,
    loss: Callable[[Any], Any] | None,
    chunk: int | None,
    jacobian: int,
    say: Callable[[str], None],
    training: Training | None,
) -> Run:
    """Measures a model as a function from arrays to arrays."""
    of = of_arrays(lambda _: model, inputs)
    of_loss = loss and (lambda parts: loss(of.restore(parts)))
    flat = Model(lambda key: of.init(key, *of.arrays), of.apply)
    try:
        settings = key, seeds, of_loss, chunk, jacobian, say, training
        return measure(flat, tuple(of.arrays), *settings)
    except NameError as error:
        if "axis name" not in str(error):
            raise
        rule = "reads an axis that nothing binds: name it, as axis_name='batch' does. "
        raise check_that.Unfit(rule + str(error), model="a model") from error


def _check_loss(loss: Any) -> None:
    if loss is not None and not callable(loss):
        rule = "loss must be a function of the output."
        raise check_that.Unfit(rule, TypeError, loss=loss)
