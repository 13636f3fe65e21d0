"""Health: the verdicts of `jaxinit.check` on the very weights that were trained."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried.data import Task
from jaxinit.signal import Finding
from jaxinit.signal.weights import find_in_weights

SEEDS = 3  # at most: verdicts are on means over seeds, which three settle
ROWS = 64  # of the training data


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
    written_out = model.written_out  # a loop would hide the activations

    def run(params: Any, rest: Any, key: jax.Array, x: jax.Array) -> Any:
        return written_out.network.train({"params": params, **rest}, x, key)[0]

    def read(initializer: int, seed: int) -> tuple[Any, dict[str, Any]]:
        cell = written_out.split(jax.tree.map(lambda a: a[initializer, seed], on_host))
        rest = {name: part for name, part in cell.items() if name != "params"}
        return cell["params"], rest

    try:
        on_host = jax.tree.map(np.asarray, initial)
        initializers, seeds = np.shape(jax.tree.leaves(on_host)[0])[:2]
        stored = [
            [read(i, seed) for seed in range(min(seeds, SEEDS))]
            for i in range(initializers)
        ]
        findings = find_in_weights(run, stored, (x,), jax.random.key(0))
    except Exception as error:  # a trained run keeps its results all the same
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return [
        Health(found[0].condition if found else "healthy", found) for found in findings
    ]
