"""Learns the factors of tensors: a compiled step, in a loop over batches."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _paths
from jaxinit._caches import cleared_by
from jaxinit._calibrate._gradinit import GradInit
from jaxinit._calibrate._metainit import MetaInit
from jaxinit._calibrate._tensors import Layout, Parts, widen
from jaxinit._calibrate.tuning import TunedTensor, TuningReport
from jaxinit._text import number

STATE = ("scales", "first", "second", "curve")  # the optimizer remembers two of them


class Learning(NamedTuple):
    """A call of `tune`."""

    loss: Callable[[Any, Any], Any]
    parts: Parts
    rule: GradInit | MetaInit
    lower: np.ndarray  # [scales]

    def descend(
        self,
        state: dict[str, np.ndarray],
        steps: int,
        feed: Callable[[int], Any],
        method: str,
        say: Callable[[str], None],
    ) -> tuple[Any, TuningReport]:
        """Takes the steps, and reports them."""
        say("compiling")
        fixed = self.rule, self.parts.weights, self.parts.others, self.lower
        program, measure = _keep_programs(self.loss, self.parts.layout)
        moving = tuple(map(jnp.asarray, (state[name] for name in STATE[:3])))
        rows, done, stopped = [*state["curve"]], len(state["curve"]), ""
        first = batch = feed(done)
        ones = (jnp.ones_like(moving[0]), *moving[1:])
        before = np.asarray(program(*fixed, ones, np.int32(0), first)[1])
        for step in range(done, steps):
            batch = first if step == done else feed(step)
            new, row, *finite = program(*fixed, moving, np.int32(step), batch)
            values = np.asarray(row)
            if stopped := self._explain(step, values, *map(np.asarray, finite)):
                if step == 0:
                    raise ValueError(f"tune(loss=...): {stopped}")
                break
            moving = new
            rows.append(values)
            name, value = self.rule.columns[0], number(values[0])
            say(f"step {step + 1} of {steps}, {name} {value}")
        after = np.asarray(program(*fixed, moving, np.int32(0), first)[1])
        curve = np.asarray(rows, np.float32).reshape(-1, len(self.rule.columns))
        arrays = *map(np.asarray, moving), curve
        tuned, sizes = measure(self.parts.weights, moving[0])
        report = TuningReport(
            method=method,
            tensors=self._list_tensors(arrays[0], np.asarray(sizes)),
            columns=self.rule.columns,
            before=dict(zip(self.rule.columns, before.tolist(), strict=True)),
            after=dict(zip(self.rule.columns, after.tolist(), strict=True)),
            state=dict(zip(STATE, arrays, strict=True)),
            gamma=getattr(self.rule, "gamma", None),
            stopped=stopped,
        )
        # Those without a factor stay the arrays they are.
        weights = [
            w if sizes is None else new
            for w, new, sizes in zip(
                self.parts.weights, tuned, self.parts.layout.sizes, strict=True
            )
        ]
        return self.parts.layout.restore(weights, self.parts.others), report

    def _explain(
        self, step: int, values: np.ndarray, weights: np.ndarray, scales: np.ndarray
    ) -> str:
        """Says what is not finite at a step; "" if all is.

        Args:
          step: its number.
          values: the columns.
          weights: whether the gradient of each weight is finite.
          scales: whether that for each scale is.
        """
        told = []
        # What is computed first comes first: the loss is the last column.
        for name, value in zip(self.rule.columns[::-1], values[::-1], strict=True):
            if not np.isfinite(value):
                told.append(f"the {name} is {value}")
        of_scales = [x.path for x in self.parts.tensors for _ in range(x.scales)]
        for paths, finite in ((self.parts.paths, weights), (of_scales, scales)):
            if bad := [x for x, each in zip(paths, finite, strict=True) if not each]:
                told.append(f"the gradient of {_paths.shown(bad[0])} is not finite")
                break
        return (
            f"Step {step}: all must be finite, and {', '.join(told)}." if told else ""
        )

    def _list_tensors(
        self, scales: np.ndarray, sizes: np.ndarray
    ) -> tuple[TunedTensor, ...]:
        rows, start = [], 0
        for tensor, (before, after) in zip(self.parts.tensors, sizes, strict=True):
            stop = start + tensor.scales
            row = TunedTensor(
                path=tensor.path,
                shape=tensor.shape,
                scales=tuple(scales[start:stop].tolist()),
                minimum=float(self.lower[start]),
                before=float(before),
                after=float(after),
            )
            rows.append(row)
            start = stop
        return tuple(rows)


@functools.lru_cache(maxsize=8)
def _make_programs(
    loss: Callable[[Any, Any], Any], layout: Layout
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Makes the programs of a step, and of what is reported of the tensors."""

    def take_step(
        rule: GradInit | MetaInit,
        weights: Sequence[Any],
        others: Sequence[Any],
        lower: jax.Array,
        moving: tuple[jax.Array, ...],
        step: jax.Array,
        batch: Any,
    ) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array, jax.Array]:
        wide = [widen(w) for w in weights]

        def compute(values: Sequence[Any], batch: Any) -> jax.Array:
            pairs = zip(values, weights, strict=True)
            narrow = [value.astype(w.dtype) for value, w in pairs]
            return _as_number(loss(layout.restore(narrow, others), batch))

        scale = functools.partial(layout.scale, wide)
        scales, *moments = moving
        slope, columns, gradient = rule.differentiate(compute, scale, scales, batch)
        norms = layout.measure_norms(wide)
        new, (first, second) = rule.advance(
            slope, scales, (moments[0], moments[1]), step, norms
        )
        row = jnp.stack([column.astype(jnp.float32) for column in columns])
        finite = jnp.stack([jnp.isfinite(g).all() for g in gradient])
        return (
            (jnp.maximum(new, lower), first, second),
            row,
            finite,
            jnp.isfinite(slope),
        )

    return jax.jit(take_step), jax.jit(functools.partial(_measure, layout))


cleared_by(_make_programs.cache_clear)


def _keep_programs(
    loss: Callable[[Any, Any], Any], layout: Layout
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns both programs, from an earlier call if there was one."""
    if layout.merge is not None:  # no later layout is equal: nothing would be found
        return _make_programs.__wrapped__(loss, layout)
    try:
        return _make_programs(loss, layout)
    except TypeError:  # the loss, or a leaf that is no array, cannot be hashed
        return _make_programs.__wrapped__(loss, layout)


def _as_number(value: Any) -> jax.Array:
    if jnp.shape(value) or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        rule = "must return one real number"
        raise check.Unfit(
            f"loss {rule}, and returned {check.show(value)}.", loss="loss"
        )
    number = jnp.asarray(value)
    return number.astype(jnp.float32) if number.dtype.itemsize < 4 else number


def _measure(
    layout: Layout, weights: Sequence[Any], scales: jax.Array
) -> tuple[list[jax.Array], jax.Array]:
    """Scales the weights; also computes roots of mean squares."""
    wide = [widen(w) for w in weights]
    scaled = layout.scale(wide, scales)
    sizes = [
        jnp.stack([jnp.sqrt(jnp.mean(jnp.square(x))).astype(jnp.float32) for x in pair])
        for *pair, size in zip(wide, scaled, layout.sizes, strict=True)
        if size is not None
    ]
    narrow = [x.astype(w.dtype) for x, w in zip(scaled, weights, strict=True)]
    return narrow, jnp.stack(sizes)  # [tensors, 2]
