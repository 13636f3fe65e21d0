"""Optimizers by spec, with a schedule of the learning rate and clipped gradients."""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from jaxinit import _check as check
from jaxinit.lab._tried._call import read, read_once

Schedule = Literal["constant", "cosine", "warmup_cosine", "steps", "plateau"]
SCHEDULES = get_args(Schedule)

Rate = Any  # a number, traced or not, or a function of the step
_WARMUP = 10  # one step in this many warms up
_PATIENCE, _FACTOR = 20, 0.5  # of "plateau": steps without progress; then the factor


def adam_then_sgd(
    learning_rate: Rate, switch: int = 200, momentum: float = 0.9, factor: float = 10.0
) -> optax.GradientTransformation:
    """Takes steps of Adam, then of SGD with momentum.

    Both are updated at every step, so that the momentum is there at the switch.

    Args:
      learning_rate: Adam's learning rate.
      switch: the step from which SGD takes over.
      momentum: SGD's momentum.
      factor: SGD's learning rate over Adam's.

    References:
      Keskar, Socher. Improving Generalization Performance by Switching from Adam to
      SGD. 2017. https://arxiv.org/abs/1712.07628
    """

    def faster(count: Any) -> Any:
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        return factor * rate

    adam, sgd = optax.adam(learning_rate), optax.sgd(faster, momentum=momentum)

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), adam.init(params), sgd.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count, *states = state
        first, one = adam.update(updates, states[0], params)
        second, two = sgd.update(updates, states[1], params)
        early = count < switch
        chosen = jax.tree.map(lambda a, b: jnp.where(early, a, b), first, second)
        return chosen, (count + 1, one, two)

    return optax.GradientTransformation(init, update)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
    "momentum": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
    "adam_then_sgd": adam_then_sgd,
}


# Builds the optimizer for a learning rate.
Build = Callable[[Rate], optax.GradientTransformationExtraArgs]


@read_once
def read_optimizer(spec: str) -> Callable[[Rate], optax.GradientTransformation]:
    """Reads an optimizer: a function of the learning rate.

    Args:
      spec: a name, or a call with literals: ``"adamw(weight_decay=0.01)"``.

    Raises:
      Unfit: if the spec is not that of an optimizer, or its arguments do not fit.
    """
    example = "adamw(weight_decay=0.01)"
    name, arguments = read(OPTIMIZERS, example, 1, optimizer=spec)

    build = functools.partial(OPTIMIZERS[name], **arguments)
    _try(lambda r: _allow_mixed_dtypes(optax.with_extra_args_support(build(r))), spec)
    return build


# The same, with factors by parameter of a scale of `jaxinit.scaling`; RMSProp's ε would
# need one, too.
_SCALED: dict[str, Callable[..., Any]] = {
    "adam": lambda scale: functools.partial(scale.adamw, weight_decay=0.0),
    "adamw": lambda scale: scale.adamw,
    "lion": lambda scale: scale.lion,
    "momentum": lambda scale: functools.partial(scale.sgd, momentum=0.9),
    "sgd": lambda scale: scale.sgd,
}


def _read_scaled(
    spec: str, scale: Any
) -> Callable[[Rate], optax.GradientTransformation]:
    """Reads an optimizer that a scale has a form of.

    Raises:
      Unfit: if it has none.
    """
    read_optimizer(spec)
    name, arguments = read(OPTIMIZERS, "adamw(weight_decay=0.01)", 1, optimizer=spec)
    if name not in _SCALED:
        rule = f"has no factors by parameter. Choose one of {', '.join(_SCALED)}."
        raise check.Unfit(rule, optimizer=spec)
    return functools.partial(_SCALED[name](scale), **arguments)


def build_optimizer(
    optimizer: str,
    schedule: str = "constant",
    clip: float = 0.0,
    steps: int = 1,
    scale: Any = None,
) -> Build:
    """Builds an optimizer with a schedule and clipping, as a function of the rate.

    Args:
      optimizer: the spec; see `read_optimizer`.
      schedule: the factor on the learning rate: "constant" is 1; "cosine" falls to 0;
        "warmup_cosine" rises over a tenth of the steps first; "steps" is a tenth from
        the middle and a hundredth from three quarters on; "plateau" halves whenever the
        loss has not fallen for 20 steps.
      clip: the largest norm of all gradients together; 0 for no limit.
      steps: number of training steps.
      scale: a scale of `jaxinit.scaling` for the network, or None.

    Raises:
      Unfit: if the spec is not that of an optimizer.
    """
    plain = (
        read_optimizer(optimizer) if scale is None else _read_scaled(optimizer, scale)
    )
    shape = {
        "cosine": lambda: optax.cosine_decay_schedule(1.0, steps),
        "warmup_cosine": lambda: optax.warmup_cosine_decay_schedule(
            0.0, 1.0, max(1, steps // _WARMUP), max(2, steps)
        ),
        "steps": lambda: optax.piecewise_constant_schedule(
            1.0, {steps // 2: 0.1, 3 * steps // 4: 0.1}
        ),
    }.get(schedule)

    def build(rate: Any) -> optax.GradientTransformationExtraArgs:
        scaled = rate
        if shape is not None:
            curve = shape()

            def scaled(count: Any) -> Any:
                return rate * curve(count)

        parts = [plain(scaled)]
        if clip:
            parts.insert(0, optax.clip_by_global_norm(clip))
        if schedule == "plateau":
            reduce = optax.contrib.reduce_on_plateau
            parts.append(reduce(factor=_FACTOR, patience=_PATIENCE))
        chained = parts[0] if len(parts) == 1 else optax.chain(*parts)
        return _allow_mixed_dtypes(optax.with_extra_args_support(chained))

    return build


def _try(build: Build, spec: str) -> None:
    """Traces a step: only then does optax check its arguments.

    Raises:
      Unfit: if the optimizer does not take the arguments of its spec.
    """

    def step(rate: jax.Array, weight: jax.Array) -> Any:
        optimizer = build(rate)
        state = optimizer.init(weight)
        return optimizer.update(weight, state, weight, value=rate)

    try:
        jax.eval_shape(step, jnp.float32(0.1), jnp.ones(2, jnp.float32))
    except Exception as error:  # whatever optax raises
        raise check.Unfit(f"fails: {check.brief(error)}", optimizer=spec) from error


def _allow_mixed_dtypes(
    optimizer: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Lets an optimizer mix dtypes, whatever JAX's setting of promotion.

    Optax does so: Adam raises a Python float to the power of an int32 count.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
