"""Settings of a comparison: what is varied and what is held fixed."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit._gain import ACTIVATIONS
from jaxinit._initializer import Initializer
from jaxinit.lab.losses import read_loss
from jaxinit.lab.model import NORMS, Norm
from jaxinit.lab.networks import NAMES
from jaxinit.lab.optimizers import optimizer_of
from jaxinit.lab.precision import Dtype, Platform, check_device, check_dtype
from jaxinit.lab.rules import Rules

# Far above what can be trained here: so that a slip is answered before memory is full.
_MOST = {
    "early_stopping": 2**31 - 1,  # steps are counted in int32
    "depth": 10_000,
    "width": 2**20,
    "seeds": 2**20,
    "steps": 2**31 - 1,
    "batch_size": 2**31 - 1,
    "devices": 2**31 - 1,
    "chunk": 2**31 - 1,
}
_MOST_ROWS = 2**28  # of all batches together, whose order is drawn beforehand


@dataclass(frozen=True)
class Settings:
    """What `compare` varies and what it holds fixed; checked when made.

    Attributes:
      initializers: of the kernels, or rules for all parameters; one or more.
      activation: name of the activation, as in `jaxinit.gain`.
      depth: number of layers or blocks, 2 or more for dense layers.
      width: outputs of every layer but the last, 1 or more.
      norm: "none", "layer" or "batch", between each hidden layer and its activation;
        "post" in a transformer stands behind each branch.
      seeds: number of seeds; seed i draws from ``jax.random.key(i)``.
      steps: number of training steps.
      learning_rates: learning rates that every initializer is tried at, above 0.
      optimizer: "adam", "adamw", "lion", "momentum", "rmsprop", "sgd", "adam_then_sgd",
        or a call such as "adamw(weight_decay=0.01)".
      batch_size: rows per step.
      target_loss: the training loss whose first step is reported, in the unit of the
        loss: nats for cross-entropy, nats a class for binary cross-entropy, weighted
        ones for focal, variances of the targets for squared errors, standard deviations
        for absolute ones.
      model: "mlp", "cnn", "resnet", "transformer", "lstm", "gru", "rnn", "coordinate",
        or "package.module:Model" of Flax Linen or NNX.
      schedule: of the learning rate: "constant", "cosine", "warmup_cosine", "steps" or
        "plateau"; see `jaxinit.lab.optimizers.optimizer_of`.
      clip: the largest norm of all gradients together; 0 for any.
      loss: "cross_entropy", "binary_cross_entropy", "focal", "squared", "absolute", or
        a call such as "focal(gamma=1.0)"; None for the default of the task.
      dropout: share of hidden units that a step of training drops, in [0, 1).
      early_stopping: steps without a better validation loss after which a cell is
        stopped; 0 for none.
      devices: that share the cells; it changes results by rounding only.
      device: "cpu", "gpu" or "tpu", or None for the one that JAX prefers.
      dtype: "float32", "bfloat16", "float16" or "float64", which the built-in networks
        compute in. Parameters, optimizer state and loss are float32 beside 16 bits
        (mixed precision; gradients in float16 are not scaled) and float64 with float64,
        which needs jax_enable_x64. Initial weights are the same in every dtype.
      chunk: cells that a device holds and trains at once, 1 or more; it changes results
        by rounding only. None for as many as its memory holds, and for a few on a CPU.
    """

    initializers: tuple[Initializer | Rules, ...]
    activation: str = "relu"
    depth: int = 20
    width: int = 64
    norm: Norm | Literal["post"] = "none"
    seeds: int = 3
    steps: int = 400
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    optimizer: str = "adam"
    batch_size: int = 64
    target_loss: float = 0.5
    model: str = "mlp"
    devices: int = 1
    schedule: str = "constant"
    clip: float = 0.0
    loss: str | None = None
    dropout: float = 0.0
    early_stopping: int = 0
    device: Platform | None = None
    dtype: Dtype = "float32"
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Raises `Unfit` for the first setting that breaks its rule."""
        object.__setattr__(self, "learning_rates", _rates(self.learning_rates))
        check.choice(tuple(ACTIVATIONS), activation=self.activation)
        check.choice((*NORMS, "post"), norm=self.norm)
        if not isinstance(self.model, str) or ":" not in self.model:
            check.choice((*NAMES, "package.module:Model"), model=self.model)
        if self.norm == "post" and self.model != "transformer":
            raise check.Unfit("post stands in a transformer only.", norm=self.norm)
        optimizer_of(self.optimizer, self.schedule, self.clip)
        if self.loss is not None:
            read_loss(self.loss)
        if not 0 <= check.real(dropout=self.dropout) < 1:
            raise check.Unfit("dropout must lie in [0, 1).", dropout=self.dropout)
        for name, most in _MOST.items():
            if name == "chunk" and self.chunk is None:
                continue
            least = {"early_stopping": 0, "depth": 2 if self.model == "mlp" else 1}
            value: Any = getattr(self, name)
            if check.at_least(least.get(name, 1), **{name: value}) > most:
                raise check.Unfit(f"{name} must be {most} or below.", **{name: value})
        if self.steps * self.batch_size > _MOST_ROWS:
            rule = f"steps times batch_size must be {_MOST_ROWS} rows or below."
            raise check.Unfit(rule, steps=self.steps)
        check.not_negative(target_loss=self.target_loss)
        check_dtype(self.dtype, self.model)
        check_device(self.device)
        count = len(jax.devices(self.device))
        if self.devices > count:
            rule = f"there are {count} devices only."
            raise check.Unfit(rule, devices=self.devices)
        if jax.process_count() > 1 and self.devices < count:
            rule = f"{jax.process_count()} processes train on all of their "
            rule += f"{count} devices."
            raise check.Unfit(rule, devices=self.devices)
        for init in self.initializers if self.model == "mlp" else ():
            if isinstance(init, Rules):
                rule = "rules are for other models: all layers of mlp are drawn alike."
                raise check.Unfit(rule, initializers=init)
        for name in ("initializers", "learning_rates"):
            given = getattr(self, name)
            if not given:
                raise check.Unfit(f"{name} must not be empty.", **{name: given})
            if len(set(given)) < len(given):
                raise check.Unfit(f"{name} has one twice.", **{name: given})


def _rates(rates: Any) -> tuple[float, ...]:
    """Returns learning rates as a tuple of numbers."""
    if isinstance(rates, (np.ndarray, jax.Array)):
        rates = rates.tolist()
    if not isinstance(rates, (tuple, list)):
        rule = "learning_rates must be a sequence of numbers."
        raise check.Unfit(rule, TypeError, learning_rates=rates)
    for rate in rates:
        if check.real(learning_rates=rate) <= 0:
            raise check.Unfit("learning rates must be above 0.", learning_rates=rate)
        with np.errstate(over="ignore"):
            held = np.float32(float(rate))
        if held == 0 or np.isinf(held):
            rule = "learning rates must be numbers that float32 holds."
            raise check.Unfit(rule, learning_rates=rate)
    return tuple(r if isinstance(r, (int, float)) else float(r) for r in rates)
