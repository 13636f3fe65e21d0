"""An experiment: what is trained, on what and how, as values.

Users write text: specs, names and paths. `design` reads it, once, and checks all that
can be checked before any time is spent; from there on there are values only.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit._gain import activation
from jaxinit._initializer import Initializer
from jaxinit.lab._tried._fitness import check_model, check_size
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried.data import Task, hold_out
from jaxinit.lab._tried.losses import (
    DEFAULTS,
    Loss,
    build_loss,
    choose_loss,
    compute_chance,
    read_loss,
)
from jaxinit.lab._tried.networks import NETWORKS, build_network
from jaxinit.lab._tried.optimizers import Build, build_optimizer
from jaxinit.lab._tried.rules import Rules, read
from jaxinit.lab._tried.settings import OPTIONS, Settings
from jaxinit.lab._tried.tasks import load_task


@dataclass(frozen=True, eq=False)
class Experiment:
    """What a comparison trains.

    Attributes:
      task: the data, with rows held out if early stopping needs them.
      network: the network, without its initializer.
      loss: the loss that training minimizes.
      optimizer: builds the optimizer for a learning rate.
      settings: the settings that all of this was made from, fitted to the task.
    """

    task: Task
    network: Network
    loss: Loss
    optimizer: Build
    settings: Settings


def design(
    initializers: Any, data: Any = None, task: str | None = None, **settings: Any
) -> Experiment:
    """Reads the arguments of `compare`.

    Args:
      initializers: specs, initializers or rules.
      data: a task, or the path of a file.
      task: the name of a task, instead of data.
      **settings: the fields of `Settings`. Unless given, the depth depends on the model
        and the target loss on the loss.

    Raises:
      ValueError: if something breaks its rule, or the parts do not fit each other.
      TypeError: if something is of a wrong type.
    """
    try:
        asked = read_settings(initializers, data, settings)
        loaded = data if isinstance(data, Task) else load_task(task, data)
        targeted = settings.get("target_loss") is not None
        experiment = fit(loaded, asked, targeted)
        if ":" in asked.model:
            check_model(experiment.network, experiment.task, asked.model)
    except check.Unfit as error:
        raise error.at("compare") from None
    drawn = draw_abstractly(experiment)
    try:
        check_size(drawn["params"], asked)
    except check.Unfit as error:
        raise error.at("compare") from None
    return experiment


def read_settings(initializers: Any, data: Any, settings: dict[str, Any]) -> Settings:
    """Reads the initializers, and fits the depth to the model."""
    for name, value in settings.items():
        if name not in OPTIONS:
            rule = f"there is no such setting.{check.suggestion(name, OPTIONS)}"
            raise check.Unfit(rule, TypeError, **{name: value})
    if not isinstance(initializers, (tuple, list)):
        rule = "initializers must be a sequence of specs. Put it in brackets."
        raise check.Unfit(rule, TypeError, initializers=initializers)
    for init in initializers:
        if not isinstance(init, (str, Initializer, Rules)):
            rule = "initializers must be specs or what a builder returns."
            if name := getattr(init, "registered", ""):
                rule += f" Call the builder: {name}()."
            raise check.Unfit(rule, TypeError, initializers=init)
    if not isinstance(data, (Task, str, Path, type(None))):
        rule = "data must be a task or a path. Write arrays by np.savez(path, x=x, "
        rule += "y=y), and give the path."
        raise check.Unfit(rule, TypeError, data=data)
    parsed = tuple(read(i) if isinstance(i, str) else i for i in initializers)
    known = NETWORKS.get(str(settings.get("model", Settings.model)))
    depth = known.depth if known else 1
    named = {
        name: value
        for name, value in settings.items()
        if value is not None or not OPTIONS[name].fitted
    }
    return Settings(parsed, **{"depth": depth} | named)


def fit(task: Task, settings: Settings, targeted: bool) -> Experiment:
    """Builds the experiment from settings and task, once they are fitted.

    Raises:
      Unfit: if they do not fit.
    """
    return assemble(*fit_settings(task, settings, targeted))


def fit_settings(
    task: Task, settings: Settings, targeted: bool
) -> tuple[Task, Settings]:
    """Fits task and settings to each other: loss, chance, rows held out.

    Args:
      task: the data.
      settings: the settings.
      targeted: whether the user chose the target loss, so that it stays as it is.

    Raises:
      Unfit: if they do not fit.
    """
    loss, early_stopping = (
        settings.pass_to(build_loss, task=task),
        settings.early_stopping,
    )
    other, rows = loss is not read_loss(DEFAULTS[task.kind]), "training rows"
    if early_stopping:
        task = hold_out(task)
        rows += " beside those held out"
        if task.x_valid is None or not len(task.x_valid):
            rule = "the task has too few training rows to hold some out."
            raise check.Unfit(rule, early_stopping=early_stopping)
    if settings.batch_size > len(task.x_train):
        rule = f"the task has {len(task.x_train)} {rows} only."
        raise check.Unfit(rule, batch_size=settings.batch_size)
    if other or early_stopping:
        task = task._replace(chance=compute_chance(task, loss))
    target = settings.target_loss
    if other and not targeted:
        target = float(f"{task.chance / 2:.2g}")
    spec = choose_loss(task, settings.loss)
    return task, dataclasses.replace(settings, loss=spec, target_loss=target)


def assemble(
    task: Task, settings: Settings, network: Network | None = None, scale: Any = None
) -> Experiment:
    """Builds the experiment from settings that fit their task.

    Args:
      task: the data.
      settings: the settings.
      network: what is trained, if it is not what the settings name.
      scale: a scale of `jaxinit.scaling`, for an optimizer with factors by parameter.
    """
    return Experiment(
        task=task,
        network=network or name_network(task, settings),
        loss=settings.pass_to(build_loss, task=task),
        optimizer=settings.pass_to(build_optimizer, scale=scale),
        settings=settings,
    )


def name_network(task: Task, settings: Settings) -> Network:
    """Builds the network that the settings name."""
    between = activation(settings.activation)
    return settings.pass_to(build_network, task=task, activation=between)


def draw_abstractly(experiment: Experiment) -> Any:
    """Traces the draws of every initializer, which raises for shapes it cannot fill."""
    key, x = jax.random.key(0), jnp.asarray(experiment.task.x_train[:1])
    loop, drawn = experiment.network.written_out, None
    keys = jax.eval_shape(loop.split_key, key)
    for init in experiment.settings.initializers:
        drawn = jax.eval_shape(loop.network.redraw_by(init), keys, x)
    return drawn
