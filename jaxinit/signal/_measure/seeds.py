"""Many seeds: one compiled program, in chunks and threads."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxinit._threads import map_on_threads
from jaxinit.signal._measure.jacobian import singular_values
from jaxinit.signal._measure.program import Measured, Statistics, layers_of, prepare
from jaxinit.signal._model import Model

_WORKERS = 2  # on a CPU: most of a seed runs on one core; each needs a seed's memory


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """All layers in the order of execution, and the Jacobian of output by input.

    Attributes:
      layers: the layers.
      jacobian: ``mean_square`` and ``largest`` singular value; empty where the input
        has no derivative.
      loss: by seed.
    """

    layers: tuple[Measured, ...]
    jacobian: Statistics
    loss: np.ndarray


def measure(
    model: Model,
    inputs: tuple[Any, ...],
    key: jax.Array,
    seeds: int,
    loss: Callable[[Any], jax.Array] | None,
    chunk: int | None,
    jacobian: int,
    say: Callable[[str], None] = lambda what: None,
) -> Run:
    """Runs a model from many seeds.

    Args:
      model: the model.
      inputs: what it is called with.
      key: the key of all seeds.
      seeds: how many.
      loss: computes a number from the output; by default the product with a random
        normal array.
      chunk: seeds at a time, on a CPU for each of two threads; by default one there,
        and eight elsewhere.
      jacobian: seeds of which the singular values are computed.
      say: is told what goes on.
    """
    say("tracing the model")
    program = prepare(model, inputs, key, loss)
    on_cpu = jax.default_backend() == "cpu"
    if chunk is None:
        chunk = 1 if on_cpu else min(seeds, 8)
    workers = min(_WORKERS if on_cpu else 1, seeds)

    @jax.jit
    def some_seeds(key: jax.Array, places: jax.Array, inputs: tuple[Any, ...]) -> Any:
        batch = None if chunk == 1 else chunk
        one = functools.partial(program.one, inputs=inputs)
        keys = jax.random.split(key, seeds)[places]
        return jax.lax.map(one, keys, batch_size=batch)

    # Each worker has equally many, the last perhaps some again: one program serves all.
    each = -(-seeds // workers)
    places = np.arange(workers * each, dtype=np.int32).reshape(workers, each) % seeds
    say("compiling")
    compiled = some_seeds.lower(key, places[0], inputs).compile()

    def fetched(places: np.ndarray) -> Any:
        with undisturbed():
            return jax.device_get(compiled(key, places, inputs))

    say(f"running {seeds} seeds")
    found = map_on_threads(fetched, places, workers=workers)
    number, statistics = jax.tree.map(
        lambda *parts: np.concatenate(parts)[:seeds], *found
    )
    singular = {}
    if jacobian and (products := singular_values(model, inputs, key)):
        say("computing singular values")
        keys = jax.random.split(key, seeds)[:jacobian]
        singular = jax.device_get(products(keys, inputs))
    return Run(layers_of(program, statistics), singular, np.asarray(number))


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Switches off flags of JAX that would stop programs that look at sick models.

    Numbers that are not finite are among what is measured. Programs are compiled ahead
    of time, which cannot go without `jax.jit`, and put equal draws into loops, where
    JAX cannot see that each has a key of its own.
    """
    with (
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.debug_key_reuse(False),
    ):
        yield
