"""Checks that a model fits its task and the machine, before any time is spent."""

import math
import os
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.settings import Settings

_ROWS = 2  # a single row could hide that a model drops or mixes up the axis of rows


def check_model(network: Network, task: Task, name: str) -> None:
    """Traces a user's model, without computing anything.

    Raises:
      Unfit: if it fails, has no parameters, or does not return a row of outputs for
        each row of inputs.
    """
    x = jax.ShapeDtypeStruct((_ROWS, *task.x_train.shape[1:]), task.x_train.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        variables = jax.eval_shape(network.init, key, x)
        params = variables.get("params")
        returned = [
            jax.eval_shape(network.apply, variables, x),
            jax.eval_shape(network.train, variables, x, key)[0],
        ]
    except check.Unfit:
        raise
    except Exception as error:  # whatever a user's code raises
        shape = list(x.shape[:1] + task.example if task.example else x.shape)
        rule = f"fails on inputs of shape {shape}: {check.brief(error)}"
        raise check.Unfit(rule, model=name) from error
    if not jax.tree.leaves(params):
        raise check.Unfit("has no parameters to draw.", model=name)
    length = x.shape[1:] if task.tokens else ()
    for each in returned:
        _check_outputs(each, (_ROWS, *length, task.outputs), task, name)


def _check_outputs(z: Any, shape: tuple[int, ...], task: Task, name: str) -> None:
    """Raises for outputs of a wrong shape or dtype, which a loss could broadcast."""
    if not isinstance(z, jax.ShapeDtypeStruct):
        rule = f"must return one array, not {type(z).__name__}."
    elif z.shape != shape:
        what = "classes" if task.kind == "classification" else "targets"
        rule = f"returns {list(z.shape)} for {_ROWS} rows, where {task.name} needs "
        rule += f"{list(shape)}: an output for each of its {task.outputs} {what}."
    elif not jnp.issubdtype(z.dtype, jnp.floating):
        rule = f"must return real numbers, not {z.dtype}."
    else:
        return
    raise check.Unfit(rule, model=name)


def check_size(params: Any, settings: Settings) -> None:
    """Raises `Unfit` if the weights of all cells exceed the machine's memory."""
    entries = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    each = 4 * entries
    cells = settings.seeds * len(settings.initializers) * len(settings.learning_rates)
    room = _read_memory()
    if each * cells <= room:
        return
    own = "model" if ":" in settings.model else "width"
    name = own if each > room else "seeds"
    rule = (
        f"the weights of {cells} cells take {each * cells / 2**30:.3g} GiB, and this "
    )
    rule += f"machine has {room / 2**30:.3g}. Train fewer, or smaller networks."
    raise check.Unfit(rule, **{name: getattr(settings, name)})


def _read_memory() -> float:
    """Returns the bytes of this machine's memory; infinity if the system hides it."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf
