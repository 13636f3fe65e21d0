"""Measures a model from many seeds: draws its weights, runs it, sums up, side by side.

The work of a seed has three parts. Its weights are filled by `jit_init`; one compiled
program runs the model and returns what flows through it; NumPy computes statistics of
that, on a thread for each core. So little is compiled, and nothing for another key,
number of seeds or initializer. On accelerators, and where what flows does not fit into
memory, the program computes the statistics too.
"""

import contextlib
import dataclasses
import functools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit._adapt.functions import Model
from jaxinit._placement import platform_of
from jaxinit._threads import open_pool
from jaxinit.model import jit_init
from jaxinit.signal._measure._descent import SEEDS, Descent, Training, descend
from jaxinit.signal._measure._draw import (
    Seed,
    draw_cotangents,
    prepare_draw,
    prepare_split,
)
from jaxinit.signal._measure._groups import list_shifted
from jaxinit.signal._measure._kept import call, compile_once
from jaxinit.signal._measure.flow import Flow, run_model
from jaxinit.signal._measure.jacobian import (
    Products,
    compute_singular_values,
    prepare_products,
)
from jaxinit.signal._measure.layers import Measured, Statistics, layers_of
from jaxinit.signal._measure.program import Program, prepare
from jaxinit.signal._measure.summary import OfModel, sum_up

# Threads on a CPU: most of a seed's work runs on one core. Each thread needs the memory
# of a seed.
_WORKERS = 2
_SHARE = 0.25  # of the memory: what flows from one seed per worker may take as much
_MOST_ROWS = 2000  # of layers and steps of loops: NumPy takes about 1 ms for each


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """The measurements of a model over all seeds.

    Attributes:
      layers: the layers in the order of execution.
      jacobian: the ``mean_square`` of the singular values of output by input, and the
        ``largest``; empty where the input has no derivative.
      loss: the loss of each seed.
      program: the model.
      descent: what steps of an optimizer did, if any were taken.
      gains: by path, the largest entry of a gain and of its gradient. # [seeds, 2]
    """

    layers: tuple[Measured, ...]
    jacobian: Statistics
    loss: np.ndarray
    program: Program
    descent: Descent | None
    gains: Statistics


# Measures a batch of seeds: an `OfModel` with a leading axis for these.
Pass = Callable[[Sequence[Seed]], Any]


def measure(
    model: Model,
    inputs: tuple[Any, ...],
    key: jax.Array,
    seeds: int,
    loss: Callable[[Any], jax.Array] | None,
    chunk: int | None,
    jacobian: int,
    say: Callable[[str], None] = lambda what: None,
    training: Training | None = None,
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
      training: the steps of an optimizer that are taken from the first seeds, if any.
    """
    say("tracing the model")
    program = prepare(model, inputs, key, loss)
    products = None
    if jacobian:
        products = prepare_products(model, inputs, program.stored, key)
    draw, types = prepare_draw(program, products and products.start)
    keys = prepare_split(seeds)(key)
    on_cpu = platform_of() == "cpu"
    double = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    workers = _WORKERS if on_cpu else 1
    if chunk is None:
        chunk = 1 if on_cpu else min(seeds, 8)
    results = []
    with open_pool(workers) as pool:
        say("compiling")
        run = _compile_pass(pool, program, inputs, [types] * chunk, on_cpu)
        multiply = products and _compile_products(pool, products, inputs, types)

        def work(batch: list[Seed], rows: int) -> tuple[OfModel, list[Statistics]]:
            with _enter_thread(double):
                found = run([*batch, *batch[-1:] * (chunk - len(batch))])
                singular = [
                    compute_singular_values(
                        seed.vectors, functools.partial(multiply, seed)
                    )
                    for seed in batch[:rows]
                    if multiply
                ]
            return jax.tree.map(lambda a: a[: len(batch)], found), singular

        running: deque[Future[Any]] = deque()
        for start in range(0, seeds, chunk):
            batch = list(map(draw, keys[start : start + chunk]))
            running.append(pool.submit(work, batch, max(0, jacobian - start)))
            if len(running) > workers:
                results.append(running.popleft().result())
                say(f"running {seeds} seeds")
        results += [job.result() for job in running]
        descent = None
        if training:
            say(f"taking {training.steps} steps")
            first = list(map(draw, keys[:SEEDS]))
            descent = descend(pool, program, inputs, first, training)
    statistics = jax.tree.map(
        lambda *parts: np.concatenate(parts), *(found for found, _ in results)
    )
    singular = [values for _, each in results for values in each]
    paths = program.paths
    return Run(
        layers_of(program, statistics),
        jax.tree.map(lambda *each: np.stack(each), *singular) if singular else {},
        statistics.loss,
        program,
        descent,
        {paths[leaf]: each for leaf, each in statistics.gains.items()},
    )


def measure_weights(
    model: Model,
    inputs: tuple[Any, ...],
    stored: Sequence[Sequence[Any]],
    key: jax.Array,
) -> list[tuple[Measured, ...]]:
    """Runs a model with weights that were drawn before.

    Args:
      model: the model; its init returns what is stored for a seed.
      inputs: the inputs of its call.
      stored: for each initializer, what the model stores for each seed.
      key: the key of noise and cotangents.

    Returns:
      For each initializer, the layers in the order of execution.
    """
    program = prepare(model, inputs, key)
    _, noise, last = jax.random.split(key, 3)
    cotangents = jit_init(lambda key: draw_cotangents(program, key))(last)
    on_cpu = platform_of() == "cpu"
    double = jax.config.jax_enable_x64  # type: ignore[attr-defined]

    with open_pool(_WORKERS if on_cpu else 1) as pool:
        types = Seed(program.stored, noise, cotangents, None)
        run = _compile_pass(pool, program, inputs, [types], on_cpu)

        def work(one: Any) -> OfModel:
            with _enter_thread(double):
                found: OfModel = run([Seed(one, noise, cotangents, None)])
            return found

        jobs = [[pool.submit(work, one) for one in seeds] for seeds in stored]
        found = [[job.result() for job in each] for each in jobs]
    return [
        layers_of(program, jax.tree.map(lambda *parts: np.concatenate(parts), *each))
        for each in found
    ]


def _compile_pass(
    pool: Executor,
    program: Program,
    inputs: tuple[Any, ...],
    batch: list[Seed],
    on_cpu: bool,
) -> Pass:
    """Compiles the pass, and statistics with it if NumPy is not to compute them."""

    def flow(seed: Seed, inputs: tuple[Any, ...]) -> Flow:
        return run_model(program, seed, inputs)

    def sum_up_all(batch: list[Seed], inputs: tuple[Any, ...]) -> Any:
        stacked = jax.tree.map(lambda *each: jnp.stack(each), *batch)

        def one(seed: Seed) -> OfModel:
            return sum_up(program, flow(seed, inputs))

        size = len(batch) if len(batch) > 1 else None
        return jax.lax.map(one, stacked, batch_size=size)

    if on_cpu and len(batch) == 1 and _fits(program):
        compiled = compile_once(pool, flow, program.spelling, batch[0], inputs)

        def run(batch: Sequence[Seed]) -> Any:
            flown = jax.tree.map(np.asarray, call(compiled, batch[0], inputs))
            one = sum_up(program, flown, np)
            return jax.tree.map(lambda a: np.asarray(a)[None], one)

        return run
    whole = compile_once(pool, sum_up_all, program.spelling, batch, inputs)
    return lambda batch: jax.device_get(call(whole, batch, inputs))


def _fits(program: Program) -> bool:
    """Returns whether the host can hold and sum up what flows from one seed."""
    rows = sum(math.prod(steps) for _, steps in program.sites)
    return rows <= _MOST_ROWS and count_bytes(program) <= _SHARE * _measure_memory()


def count_bytes(program: Program) -> int:
    """Counts the bytes of what flows from one seed per worker."""
    size: int = sum(
        math.prod((*steps, *var.aval.shape)) * var.aval.dtype.itemsize
        for site, steps in program.sites
        for var in (*site.parts.values(), *list_shifted(site).values())
    )
    return _WORKERS * size


def _measure_memory() -> float:
    """Returns the bytes of the machine's memory; infinite where it does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _compile_products(
    pool: Executor, products: Products, inputs: tuple[Any, ...], types: Seed
) -> Callable[[Seed, Any], Any]:
    """Compiles the products with the Jacobian of a seed."""
    args = types.stored, types.noise, inputs, products.operand
    compiled = compile_once(pool, products.multiply, products.spelling, *args)
    return lambda seed, u: call(compiled, seed.stored, seed.noise, inputs, u)


@contextlib.contextmanager
def _enter_thread(double: bool) -> Iterator[None]:
    """Makes the settings that hold in one thread alone."""
    with disable_checks(), jax.enable_x64(double), np.errstate(all="ignore"):
        yield


@contextlib.contextmanager
def disable_checks() -> Iterator[None]:
    """Switches off flags of JAX that would stop a check of a sick model.

    Numbers that are not finite are measured, not refused. Programs are compiled ahead
    of time, which needs `jax.jit`, and put equal layers into loops, where JAX cannot
    see that each has a key of its own.
    """
    with (
        jax.disable_jit(False),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.debug_key_reuse(False),
    ):
        yield
