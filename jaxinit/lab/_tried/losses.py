"""Losses, read from text, each with its unit and the loss of chance; the test score.

Chance is the mean training loss of the best constant prediction, the same for every
row: the loss of a network that has learned nothing from its inputs.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinit import _check as check
from jaxinit.lab._tried._call import read, read_once
from jaxinit.lab._tried.data import Task, entropy

_THIRDS = 80  # steps of the search for the best probability: (2/3)^80 is 1e-14

Kind = Literal["classification", "regression"]


class Loss(NamedTuple):
    """A loss.

    Attributes:
      kind: the kind of task that it is for.
      unit: the unit of its values.
      each: maps outputs and targets to a loss for each target; a class is an index, 0
        or above. # [..., classes], [...] or [...], [...] -> [...]
      chance: computes the loss of the best constant prediction from the targets and the
        number of outputs.
    """

    kind: Kind
    unit: str
    each: Callable[[jax.Array, jax.Array], jax.Array]
    chance: Callable[[np.ndarray, int], float]


def cross_entropy() -> Loss:
    """Softmax cross-entropy of the classes, in nats."""
    each = optax.softmax_cross_entropy_with_integer_labels
    return Loss("classification", "nats", each, lambda y, outputs: entropy(y))


def binary_cross_entropy() -> Loss:
    """Sigmoid cross-entropy of each class against the rest, averaged over classes."""
    return _one_vs_rest("nats a class", optax.sigmoid_binary_cross_entropy, 0.0, None)


def focal(gamma: float = 2.0, alpha: float | None = None) -> Loss:
    """Sigmoid focal loss of each class against the rest, averaged over classes.

    Args:
      gamma: how strongly rows that are right already are discounted, 0 or above; 0 is
        `binary_cross_entropy`.
      alpha: weight of the class, between 0 and 1; that of the rest is 1 - alpha. None
        for weights of 1.

    References:
      Lin, Goyal, Girshick, He, Dollár. Focal Loss for Dense Object Detection. 2017.
      https://arxiv.org/abs/1708.02002
    """
    check.not_negative(gamma=gamma)
    if alpha is not None and not 0 < check.real(alpha=alpha) < 1:
        raise check.Unfit("alpha must lie between 0 and 1.", alpha=alpha)

    def each(z: jax.Array, labels: jax.Array) -> jax.Array:
        losses: jax.Array = optax.sigmoid_focal_loss(
            z, labels, alpha=alpha, gamma=gamma
        )
        return losses

    return _one_vs_rest("weighted nats a class", each, gamma, alpha)


def squared() -> Loss:
    """Squared error."""

    def chance(y: np.ndarray, outputs: int) -> float:
        return float(y.var(axis=0).mean())

    return Loss("regression", "variances of the targets", optax.squared_error, chance)


def absolute() -> Loss:
    """Absolute error, which optax lacks."""

    def chance(y: np.ndarray, outputs: int) -> float:
        y = y.astype(np.float64)
        return float(np.abs(y - np.median(y, axis=0)).mean())

    unit = "standard deviations of the targets"
    return Loss("regression", unit, lambda z, y: jnp.abs(z - y), chance)


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal,
    "squared": squared,
    "absolute": absolute,
}
DEFAULTS: dict[str, str] = {"classification": "cross_entropy", "regression": "squared"}


@read_once
def read_loss(spec: str) -> Loss:
    """Reads a loss: a name, or a call with literals such as ``"focal(gamma=2.0)"``.

    Raises:
      Unfit: if the spec is not that of a loss.
    """
    name, arguments = read(LOSSES, "focal(gamma=2.0)", 0, loss=spec)
    try:
        return LOSSES[name](**arguments)
    except check.Unfit as error:
        raise check.Unfit(str(error), error.kind, loss=spec) from None


def choose_loss(task: Task, spec: str | None) -> str:
    """Returns the spec, or the task's default loss if there is no spec.

    Raises:
      Unfit: if the loss is for another kind of task.
    """
    if spec is None:
        return DEFAULTS[task.kind]
    loss = read_loss(spec)
    if loss.kind != task.kind:
        fit = [name for name, build in LOSSES.items() if build().kind == task.kind]
        rule = f"is for {loss.kind}; for {task.name} choose one of {', '.join(fit)}."
        raise check.Unfit(rule, loss=spec)
    return spec


def build_loss(task: Task, loss: str | None) -> Loss:
    """Builds the loss of a comparison; one object for the task's default loss.

    Raises:
      Unfit: if the loss is for another kind of task.
    """
    return read_loss(choose_loss(task, loss))


def make_loss(task: Task, loss: Loss) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns a function that computes the mean loss of a batch."""

    def classify(z: jax.Array, y: jax.Array) -> jax.Array:
        losses = loss.each(z, jnp.maximum(y, 0))
        return losses.mean(where=y >= 0) if task.tokens else losses.mean()

    if task.kind == "classification":
        return classify
    return lambda z, y: loss.each(z, y).mean()


def compute_chance(task: Task, loss: Loss) -> float:
    """Computes the loss of the best constant prediction of the training targets."""
    y = task.y_train
    if task.kind == "classification":
        y = y[y >= 0]
    return loss.chance(y, task.outputs)


def _one_vs_rest(
    unit: str,
    each: Callable[[jax.Array, jax.Array], jax.Array],
    gamma: float,
    alpha: float | None,
) -> Loss:
    """Makes a loss over classes of a binary one: (1 - p)^gamma (-log p) for label p."""
    one, rest = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)

    def average(z: jax.Array, y: jax.Array) -> jax.Array:
        return each(z, jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)).mean(-1)

    def chance(y: np.ndarray, outputs: int) -> float:
        share = np.bincount(y, minlength=outputs) / len(y)

        def loss(p: np.ndarray) -> Any:
            seen = one * share * (1 - p) ** gamma * -np.log(p)
            return seen + rest * (1 - share) * p**gamma * -np.log1p(-p)

        # Convex in p for every gamma: a third of the range can be cut off each time.
        low, high = np.zeros(outputs), np.ones(outputs)
        for _ in range(_THIRDS):
            third = (high - low) / 3
            left = loss(low + third) < loss(high - third)
            low, high = (
                np.where(left, low, low + third),
                np.where(left, high - third, high),
            )
        return float(loss((low + high) / 2).mean())

    return Loss("classification", unit, average, chance)


def make_score(task: Task) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns the function of the test score: accuracy, or R^2 (variance explained)."""

    def accuracy(z: jax.Array, y: jax.Array) -> jax.Array:
        # argmax of a row with NaN is an index, too, and would count as a prediction.
        right = (z.argmax(-1) == y) & ~jnp.isnan(z).any(-1)
        return right.mean(where=y >= 0) if task.tokens else right.mean()

    if task.kind == "classification":
        return accuracy
    return lambda z, y: 1 - ((z - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
