"""Plans the fill of a large model.

Run from the checkout: ``python -m bench.models.plan_fill [--devices N] [--rate R]``.

Nothing is allocated: the model is traced, and its slices are counted. Seconds are the
entries of a device over a rate, which is measured here on one draw of a layer's size,
or given.
"""

import argparse
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit
from bench import models
from jaxinit import _table, _text

_SAMPLE = 2**24  # entries of the draw that the rate is measured on


def main(arguments: list[str] | None = None) -> int:
    """Prints the plan.

    Args:
      arguments: the words after the command; by default the process's.

    Returns:
      The exit code, 0.
    """
    parser = argparse.ArgumentParser(prog="bench.models.plan_fill", description=__doc__)
    add = parser.add_argument
    add("--layers", type=int, default=86, help="blocks (default: 86)")
    add("--width", type=int, default=8192, help="of the model (default: 8192)")
    add("--vocabulary", type=int, default=32000, help="tokens (default: 32000)")
    add("--context", type=int, default=4096, help="positions (default: 4096)")
    add("--devices", type=int, default=64, help="that share the model (default: 64)")
    add("--rate", type=float, help="entries a second of a device (default: measured)")
    options = parser.parse_args(arguments)
    model = models.GPT(
        layers=options.layers,
        width=options.width,
        heads=max(options.width // 128, 1),
        vocabulary=options.vocabulary,
        context=options.context,
    )
    begun = time.perf_counter()
    key = jax.eval_shape(lambda: jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    plan = jaxinit.jit_init(model.init).plan(key, tokens)
    traced = time.perf_counter() - begun
    rate = options.rate or _measure_rate()

    def count(part: Any) -> int:
        return sum(math.prod(output.shape) for output in part.outputs)

    def estimate(part: Any) -> float:
        return 0.0 if part.kind == "constant" else count(part) / options.devices / rate

    columns: tuple[_table.Column[Any], ...] = (
        _table.Column("first", lambda part: part.outputs[0].path, left=True),
        _table.Column("kind", lambda part: part.kind, left=True),
        _table.Column("arrays", lambda part: str(len(part.members))),
        _table.Column("10^9 entries", lambda part: f"{count(part) / 1e9:.3f}"),
        _table.Column("bytes", lambda part: _text.size(part.bytes)),
        _table.Column(
            "a device", lambda part: _text.size(part.bytes / options.devices)
        ),
        _table.Column("seconds", lambda part: f"{estimate(part):.2f}"),
    )
    print("\n".join(_table.Table.of(columns, plan.slices).lines()))
    entries = sum(math.prod(o.shape) for o in plan.outputs)
    size = sum(o.bytes for o in plan.outputs)
    print(
        f"\n{entries / 1e9:.1f} billion parameters, {_text.size(size)}, "
        f"{_text.size(size / options.devices)} on each of "
        f"{options.devices} devices, {len(plan.slices)} programs; "
        f"traced in {traced:.1f} s; {rate / 1e9:.2f} billion entries a second: "
        f"{entries / options.devices / rate:.1f} s a device."
    )
    return 0


def _measure_rate() -> float:
    """Measures how many truncated normal entries this device draws in a second."""
    init = jaxinit.jit_init(
        lambda key: jaxinit.lecun_normal()(key, (4096, _SAMPLE // 4096))
    )
    jax.block_until_ready(init(jax.random.key(0)))
    seconds = []
    for seed in range(3):
        begun = time.perf_counter()
        jax.block_until_ready(init(jax.random.key(seed)))
        seconds.append(time.perf_counter() - begun)
    return _SAMPLE / float(np.median(seconds))


if __name__ == "__main__":
    raise SystemExit(main())
