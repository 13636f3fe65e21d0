"""Health: the verdicts of `jaxinit.check` on the very weights that were trained.

One program serves every initializer and seed: it takes the weights as arguments instead
of drawing them, so that it is compiled once.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._adapt.functions import Model
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried.data import Task
from jaxinit.signal import Finding
from jaxinit.signal._judge.judge import judge
from jaxinit.signal._measure._draw import Seed, draw_cotangents
from jaxinit.signal._measure.flow import run_model
from jaxinit.signal._measure.layers import layers_of
from jaxinit.signal._measure.program import Program, prepare
from jaxinit.signal._measure.summary import sum_up

SEEDS = 3  # at most: verdicts are on means over seeds, which three settle
ROWS = 64  # of the training data
_LIMIT = 100.0  # the default of `jaxinit.check`


class Health(NamedTuple):
    """What `jaxinit.check` says about an initializer.

    Attributes:
      condition: the condition of the first finding, or "healthy".
      findings: what is wrong, the cause first.
    """

    condition: str
    findings: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON types."""
        findings = [dataclasses.asdict(finding) for finding in self.findings]
        return {"condition": self.condition, "findings": findings}


def diagnose(task: Task, model: Network, initial: Any) -> list[Health] | str:
    """Judges the weights of each initializer before training.

    Args:
      task: the data.
      model: the model that was trained.
      initial: variables. # [initializers, seeds, ...] per leaf

    Returns:
      A verdict for each initializer, or the reason why there is none.
    """
    x = jnp.asarray(task.x_train[:ROWS])
    key = jax.random.key(0)
    programs: list[Program] = []
    written_out = model.written_out  # a loop would hide the activations

    def run(params: Any, rest: Any, key: jax.Array, x: jax.Array) -> Any:
        return written_out.network.train({"params": params, **rest}, x, key)[0]

    def one(variables: Any) -> Any:
        variables = written_out.split(variables)
        rest = {name: part for name, part in variables.items() if name != "params"}
        stored = variables["params"], rest
        program = prepare(Model(lambda key: stored, run), (x,), key)
        programs.append(program)
        _, noise, last = jax.random.split(key, 3)
        seed = Seed(stored, noise, draw_cotangents(program, last), None)
        return sum_up(program, run_model(program, seed, (x,)))

    @jax.jit
    def every(initial: Any) -> Any:
        return jax.lax.map(lambda by_seed: jax.lax.map(one, by_seed), initial)

    try:
        statistics = jax.device_get(
            every(jax.tree.map(lambda a: a[:, :SEEDS], initial))
        )
    except Exception as error:  # a trained run keeps its results all the same
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    count = len(jax.tree.leaves(initial)[0])
    verdicts = []
    for i in range(count):
        mine = jax.tree.map(lambda a, i=i: np.asarray(a[i]), statistics)
        _, findings = judge(layers_of(programs[0], mine), _LIMIT)
        condition = findings[0].condition if findings else "healthy"
        verdicts.append(Health(condition, findings))
    return verdicts
