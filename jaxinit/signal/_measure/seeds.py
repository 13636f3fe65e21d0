"""Runs many seeds in one compiled program, in chunks and threads."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxinit._adapt.functions import Model
from jaxinit._threads import map_on_threads
from jaxinit.signal._measure.jacobian import prepare_singular_values
from jaxinit.signal._measure.program import Measured, Statistics, layers_of, prepare

# Threads on a CPU: most of a seed's work runs on one core. Each thread needs the memory
# of a seed.
_WORKERS = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The measurements of a model over all seeds.

    Attributes:
      layers: the layers in the order of execution.
      jacobian: the ``mean_square`` of the singular values of output by input, and the
        ``largest``; empty where the input has no derivative.
      loss: the loss of each seed.
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
      inputs: the inputs of its call.
      key: the key of all seeds.
      seeds: the number of seeds.
      loss: computes a number from the output; by default the product with a random
        normal array.
      chunk: the number of seeds that run at a time, on a CPU in each of two threads; by
        default 1 there, and 8 elsewhere.
      jacobian: the number of seeds for which singular values are computed.
      say: called with the name of each step.
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

    # One program serves all workers: each runs equally many seeds, the last one perhaps
    # some that another has run too.
    each = -(-seeds // workers)
    places = np.arange(workers * each, dtype=np.int32).reshape(workers, each) % seeds
    say("compiling")
    compiled = some_seeds.lower(key, places[0], inputs).compile()

    def fetch(places: np.ndarray) -> Any:
        with disable_checks():  # JAX's flags are set per thread
            return jax.device_get(compiled(key, places, inputs))

    say(f"running {seeds} seeds")
    chunks = map_on_threads(fetch, places, workers=workers)
    number, statistics = jax.tree.map(
        lambda *parts: np.concatenate(parts)[:seeds], *chunks
    )
    singular = {}
    if jacobian and (products := prepare_singular_values(model, inputs, key)):
        say("computing singular values")
        keys = jax.random.split(key, seeds)[:jacobian]
        singular = jax.device_get(products(keys, inputs))
    return Run(layers_of(program, statistics), singular, np.asarray(number))


@contextlib.contextmanager
def disable_checks() -> Iterator[None]:
    """Switches off flags of JAX that would stop a check of a sick model.

    Numbers that are not finite are measured, not refused. Programs are compiled ahead
    of time, which needs `jax.jit`, and put equal draws into loops, where JAX cannot see
    that each draw has a key of its own.
    """
    with (
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.debug_key_reuse(False),
    ):
        yield
