"""`tune`: learns a factor for each tensor of a model by gradient descent."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np

from jaxinit import _check as check
from jaxinit._calibrate._feed import read_batches
from jaxinit._calibrate._gradinit import DECREASE, GradInit
from jaxinit._calibrate._learning import STATE, Learning
from jaxinit._calibrate._metainit import MetaInit
from jaxinit._calibrate._tensors import take_apart
from jaxinit._calibrate.tuning import TuningReport
from jaxinit._structure.result import Structure
from jaxinit.signal.progress import report_progress

Method = Literal["gradinit", "metainit"]
Optimizer = Literal["adam", "sgd"]
# GradInit's steps are those of its authors' code for CIFAR-10, and the rate the least
# of those there (https://github.com/zhuchen03/gradinit); MetaInit's figure 2 has 500
# steps with momentum 0.9, of which norms waver more: 50 with 0.5 is ours.
_STEPS = {"gradinit": 390, "metainit": 50}
_RATES = {"gradinit": 1e-3, "metainit": 0.1}
_RANKS = {"gradinit": 0, "metainit": 2}  # the least number of axes of what has scales


def tune(
    loss: Callable[[Any, Any], Any],
    params: Any,
    batches: Any,
    method: Method = "gradinit",
    *,
    steps: int | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: float | None = None,
    gamma: float | None = None,
    scale_rate: float | None = None,
    minimum: float = 0.01,
    where: Any = None,
    stacked: Any = None,
    structure: Structure | None = None,
    state: Mapping[str, Any] | None = None,
) -> tuple[Any, TuningReport]:
    r"""Learns by what factors to multiply the tensors of a model before training.

    Both methods keep the weights as drawn, up to one factor for each tensor, and find
    the factors by gradient descent on an objective that needs no training. They are for
    models without normalization layers, whose first steps diverge.

    "gradinit" makes the first step of training lead to a low loss. Let g be the
    gradient of the loss on the first half of a batch, η the learning_rate, and A[g] = g
    for SGD, the signs of g for Adam. While \|g\| is above gamma, where the norm is
    Euclidean for SGD and the sum of moduli for Adam, the norm is lowered; otherwise the
    loss at θ − η A[g] on the whole batch, the step held constant. Factors are those of
    all tensors, and move by Adam with gradients clipped to norm 1.

    "metainit" makes the loss nearly linear, so that a step changes its gradient little:
    it lowers the gradient quotient (1/N) Σ \|(g − Hg) / (g ± ε) − 1\| over the N
    weights, with the Hessian H and ε = 1e-5. The norms of tensors with two axes or more
    move by steps of scale_rate along the signs of their gradients, with momentum 0.5.
    It needs no data: with inputs from a normal law and random labels,
    ``batches=lambda step: (jax.random.normal(key(step), (8, 32, 32, 3)),
    jax.random.randint(key(step), (8,), 0, 10))`` where ``key(step)`` is
    ``jax.random.fold_in(jax.random.key(0), step)``.

    "metainit" moves a norm by at most 2 · scale_rate in a step, so that weights far from
    their place need more steps. Its paper takes 500, with momentum 0.9.

    A step costs two to three gradients of the batch with gradinit, and ten with
    metainit. Where memory is short, tune ``jax.checkpoint(loss)``. A call that takes
    over two seconds reports its progress on a terminal or in a notebook.

    Args:
      loss: ``loss(params, batch)``, a number; a pure function that `jax.jit` can trace
        and that has second derivatives (third ones for metainit). Dropout should be off.
      params: the weights as drawn: parameters of Flax Linen or Haiku, a model or state
        of NNX, arrays of Equinox (``eqx.partition(model, eqx.is_inexact_array)[0]``), or any
        other tree. All arrays of real numbers in it are weights that training changes,
        with NNX those of an ``nnx.Param``: what a model stores beside them, such as
        ``batch_stats`` of Linen, belongs into loss.
      batches: a function from the number of a step to a batch; a list of batches, which
        take turns; an iterator or another iterable; or one batch, for all steps. A
        batch is any tree, not a list itself; gradinit halves its arrays along their
        first axis.
      method: "gradinit" or "metainit".
      steps: the number of steps, those that state has done included; by default 390
        with gradinit, as its authors have it, and 50 with metainit.
      optimizer: what the model is to be trained with, "adam" (the default) or "sgd".
        This argument and the next two belong to gradinit.
      learning_rate: its learning rate; by default 0.001 for "adam" and 0.1 for "sgd",
        as the authors have them for transformers and for CIFAR-10.
      gamma: the norm of the gradient beyond which it is lowered. By default a step may
        lower the loss by 0.1 to first order: 0.1 / learning_rate for "adam", and
        the root of that for "sgd", which is 1 for 0.1, the authors' pair. That for
        other learning rates and for "adam" is ours.
      scale_rate: the learning rate of the factors, 0.001 by default, with gradinit; the
        authors take up to 0.1, by network. Of the norms, 0.1 by default, with metainit.
      minimum: the least factor; that of a bias is 0 with gradinit.
      where: which tensors have factors: a pattern as rules of `reinit` have, or a list
        of them; by default all, with metainit all of two axes or more.
      stacked: a pattern, or a list of them, of tensors whose first axis counts layers,
        as `nn.scan` makes them: these have a factor for each layer.
      structure: what `structure` says of the model. Patterns may then name roles, and
        biases are known by their role instead of their name.
      state: the ``state`` of the report of an earlier call, whose arguments were the
        same up to steps: this one goes on where that ended, with the same bits as one
        call for all steps. It is a dictionary of arrays: ``np.savez("scales.npz",
        **report.state)`` writes it, and ``state=np.load("scales.npz")`` continues. Of
        batches, an iterator must continue where it stopped; another iterable is read
        from its beginning, past the batches of the steps done.

    Returns:
      The weights, in the types they had, and a `TuningReport`: it prints as a table of
      factors, tells the objective before, after and at each step, and has ``plot()``.

    Raises:
      ValueError: if an argument is out of range, a pattern matches nothing, state is of
        another call, or loss or gradient are not finite at the first step. At a later
        step this ends the call, with the weights of the step before, and the report
        says why.
      TypeError: if an argument has the wrong type, or belongs to another method.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> params = [jax.random.normal(key, (8, 8)) for key in keys[:2]]
      >>> def loss(params, x):
      ...     return jnp.mean((jnp.tanh(x @ params[0]) @ params[1] - x) ** 2)
      >>> x = jax.random.normal(keys[2], (16, 8))
      >>> tuned, report = tune(loss, params, x, steps=20, scale_rate=0.05)
      >>> report.after["gradient norm"] < report.before["gradient norm"]
      True

    References:
      Zhu, Ni, Xu, Kong, Huang, Goldstein. GradInit: Learning to Initialize Neural
      Networks for Stable and Efficient Training. 2021. https://arxiv.org/abs/2102.08098

      Dauphin, Schoenholz. MetaInit: Initializing learning by learning to initialize. 2019.
      https://proceedings.neurips.cc/paper/2019/hash/876e8108f87eb61877c6263228b67256-Abstract.html
    """  # noqa: E501
    try:
        check.choice(get_args(Method), method=method)
        function: Any = loss
        if not callable(function):
            needs = "loss must be a function of (params, batch)."
            raise check.Unfit(needs, TypeError, loss=loss)
        steps = _STEPS[method] if steps is None else check.at_least(0, steps=steps)
        rate = _RATES[method] if scale_rate is None else scale_rate
        rate = check.not_negative(scale_rate=rate)
        least = check.not_negative(minimum=minimum)
        given = {"optimizer": optimizer, "learning_rate": learning_rate, "gamma": gamma}
        rule = _read_settings(method, rate, given)
        parts = take_apart(params, where, stacked, structure, _RANKS[method])
        count = sum(tensor.scales for tensor in parts.tensors)
        start = _read_state(state, count, len(rule.columns))
        if (done := len(start["curve"])) > steps:
            needs = f"steps must count those of state, which are {done}, or more."
            raise check.Unfit(needs, steps=steps)
        lower = [
            0.0 if tensor.is_bias and method == "gradinit" else least
            for tensor in parts.tensors
            for _ in range(tensor.scales)
        ]
        with report_progress("jaxinit.tune") as say:
            run = Learning(loss, parts, rule, np.asarray(lower, np.float32))
            return run.descend(start, steps, read_batches(batches), method, say)
    except check.Unfit as error:
        raise error.at("tune", "loss", "params", "batches") from None


def _read_settings(
    method: str, rate: float, given: Mapping[str, Any]
) -> GradInit | MetaInit:
    if method == "metainit":
        for name, value in given.items():
            if value is not None:
                rule = f'{name} belongs to method="gradinit".'
                raise check.Unfit(rule, TypeError, **{name: value})
        return MetaInit(rate=rate)
    optimizer, eta, gamma = given.values()
    optimizer = check.choice(get_args(Optimizer), optimizer=optimizer or "adam")
    is_adam = optimizer == "adam"
    eta = (1e-3 if is_adam else 0.1) if eta is None else eta
    if check.real(learning_rate=eta) <= 0:
        raise check.Unfit("learning_rate must be above 0.", learning_rate=eta)
    if gamma is None:
        gamma = DECREASE / eta if is_adam else (DECREASE / eta) ** 0.5
    elif gamma != math.inf:
        gamma = check.not_negative(gamma=gamma)
    return GradInit(
        optimizer=optimizer, learning_rate=float(eta), gamma=float(gamma), rate=rate
    )


def _read_state(state: Any, count: int, columns: int) -> dict[str, np.ndarray]:
    """Returns the arrays to start from; `first` and `second` are an optimizer's."""
    if state is None:
        zeros = np.zeros(count, np.float32)
        curve = np.zeros((0, columns), np.float32)
        arrays = np.ones(count, np.float32), zeros, zeros, curve
        return dict(zip(STATE, arrays, strict=True))
    rule = "state must be the state of the report of an earlier call"
    if not isinstance(state, Mapping) or set(state) != set(STATE):
        raise check.Unfit(f"{rule}.", TypeError, state=state)
    read = {name: np.asarray(state[name], np.float32) for name in STATE}
    shapes = [read[name].shape for name in STATE]
    if shapes != [(count,)] * 3 + [(len(read["curve"]), columns)]:
        rule += f" with the same tensors and method. Here are {count} factors and "
        rule += f"{columns} columns, and its arrays have shapes {shapes}."
        raise check.Unfit(rule, state="an earlier state")
    return read
