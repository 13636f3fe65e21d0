"""`coordinate_check`: trains a few steps at several sizes, and compares the layers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax

from jaxinit import _check as check
from jaxinit import _paths, _placement
from jaxinit._adapt.functions import Call
from jaxinit._adapt.inputs import read_inputs, read_keywords, read_names
from jaxinit.scaling._build import reuse
from jaxinit.scaling._coordinate_model import Sized, prepare
from jaxinit.scaling._coordinate_report import CoordinateReport
from jaxinit.scaling._coordinate_run import measure
from jaxinit.scaling._scale import Scale
from jaxinit.scaling._slopes import Along, Slopes, judge

_APPLIED = (
    "The model has to multiply, as print(scale.forward) says: a factory that does not "
    "is accused."
)
TOLERANCE = 0.2  # √n grows with the exponent .5, n with 1


def coordinate_check(
    factory: Callable[[int], Any],
    sizes: Sequence[int],
    x: Any,
    *,
    key: jax.Array,
    optimizer: Any,
    loss: Callable[[Any], Any] | None = None,
    scaling: Callable[..., Any] | None = None,
    rules: Any = None,
    base: int | None = None,
    along: Along = "width",
    steps: int = 4,
    seeds: int = 3,
    tolerance: float = TOLERANCE,
    arguments: Mapping[str, Any] | None = None,
    streams: str | Sequence[str] = ("dropout",),
) -> CoordinateReport:
    """Checks that initial weights and learning rates carry over to other widths.

    The model is trained for a few steps at each size, always on the same batch, and the
    mean absolute output of each layer is measured. Where a parameterization is right,
    no layer's output grows with the width n, at the start or after any step, and no
    layer's update vanishes. Slopes of log output against log n show it, with intervals
    over seeds.

    Each layer is then judged by what it does itself, which no fault before it changes:

    ==========  ========================================================================
    condition   what depends on the width
    ==========  ========================================================================
    start       the layer's output over its input, at the start: its initial weights. A
                readout that falls is right: it falls as n^-½ or is zero
    update      what the change of the weight makes of the input: the learning rate. If
                it falls the layer learns nothing when wide
    attention   the logits' change, or the logits at the start if they grow there
    decay       weight decay times learning rate
    stream      what residual branches add up to, where no layer alone is wrong; over
                depth always
    aligned     what the initial weight makes of its input's change. It is told, and not
                asserted: the readout of the standard parameterization has it by design
    ==========  ========================================================================

    Args:
      factory: makes a model of a size, as `check` takes it: ``lambda width:
        Net(width)``. Its numbers of heads, classes, tokens stay the same.
      sizes: widths, or depths; two or more. Powers of 2 from 64 to 1024 are usual.
      x: the batch: the input as `check` takes it, a tuple for several.
      key: the PRNG key of all seeds.
      optimizer: one of optax; or, with a scaling, a function of what that returns:
        ``lambda scale: scale.adamw(1e-2)``. Large learning rates show most.
      loss: a function of the output. By default it is the output times random numbers,
        summed over the last axis and averaged over all others: the first term of any
        loss. Its gradient at the output is the same at all sizes and steps, so that
        nothing stops a layer that grows.
      scaling: a function of (base model, model, *x), such as `jaxinit.scaling.mup`,
        which takes ``arguments`` and ``streams`` too if they are given. By default
        none: what the model draws, and one optimizer for all sizes.
      rules: the recipe of the initial weights, for `reinit`; with a scaling they are
        ``scale.rules(rules)``. By default weights are what the model itself draws;
        with a scaling times a factor, so that their standard deviation is that of the
        base model's times what the scaling says.
      base: the size of the base model; by default the first of the sizes.
      along: "width"; or "depth", where sizes are numbers of blocks. Layers of blocks
        are then compared by what their paths have in common, such as
        "block_*/Dense_0", with means over blocks, and updates of a layer may fall.
      steps: how many steps are taken.
      seeds: how often weights are drawn at each size.
      tolerance: the exponent that the interval of a slope must reach below.
      arguments: keywords of the model's call, such as ``{"train": False}``.
      streams: names of the random streams that the call needs beside ``params``. Noise,
        such as dropout, is the same at all steps.

    Returns:
      A `CoordinateReport`: it prints as a table, and has ``findings``, ``plot()`` and
      ``assert_transfers()``.

    Raises:
      ValueError: if an argument is out of range, or the sizes have different layers.
      TypeError: if an argument has the wrong type. A model that fails raises its own
        error.

    Example:
      >>> import flax.linen as nn, optax
      >>> from jaxinit.scaling import coordinate_check
      >>> def net(width):
      ...     hidden = [nn.Dense(width), nn.relu, nn.Dense(width), nn.relu]
      ...     return nn.Sequential([*hidden, nn.Dense(4)])
      >>> x = jax.random.normal(jax.random.key(1), (8, 16))
      >>> report = coordinate_check(net, (64, 128, 256), x, key=jax.random.key(0),
      ...                           optimizer=optax.adam(1e-2))
      >>> [finding.path for finding in report.findings if finding.condition == "update"]
      ['layers_2', 'layers_4']

    References:
      Yang et al. Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
      Hyperparameter Transfer. 2021. https://arxiv.org/abs/2203.03466
    """
    try:
        key = _placement.release(check.key(key))
        sizes = _read_sizes(sizes)
        check.at_least(1, steps=steps)
        check.at_least(1, seeds=seeds)
        check.choice(get_args(Along), along=along)
        if check.real(tolerance=tolerance) <= 0:
            raise check.Unfit("tolerance must be above 0.", tolerance=tolerance)
        _check_functions(factory, loss, scaling, optimizer)
        first = sizes[0] if base is None else check.at_least(1, base=base)
        if base is not None and scaling is None:
            rule = "base must be left out without a scaling."
            raise check.Unfit(rule, base=base)
        keywords, names = read_keywords(arguments), read_names(streams=streams)
        inputs = jax.tree.map(_placement.untyped, read_inputs(x))
        with _placement.automatic():
            call = Call(inputs, keywords, names)
            every = sorted({*sizes, first})
            traced = {n: prepare(n, factory(n), call, loss) for n in every}
            models = [
                dataclasses.replace(traced[n], optimizer=optimizer, rules=rules)
                for n in sizes
            ]
            if scaling is not None:
                passed: dict[str, Any] = {"arguments": arguments} if arguments else {}
                passed |= {"streams": streams} if streams != ("dropout",) else {}
                models = _scale(scaling, traced[first], models, inputs, passed, key)
            things = measure(models, key, seeds, steps, along)
    except check.Unfit as error:
        raise error.at("coordinate_check", "factory", "sizes", "x") from None
    slopes = [Slopes(sizes, each) for each in things]
    return CoordinateReport(
        things=things,
        slopes=slopes,
        findings=judge(things, slopes, along, tolerance),
        sizes=sizes,
        along=along,
        seeds=seeds,
        steps=steps,
        tolerance=tolerance,
        unseen=models[0].unseen,
        notes=_note(models[-1].scale),
    )


def _scale(
    scaling: Callable[..., Any],
    base: Sized,
    models: Sequence[Sized],
    inputs: Sequence[Any],
    passed: Mapping[str, Any],
    key: jax.Array,
) -> list[Sized]:
    """Gives each model the optimizer and the initial weights that a scaling asks for.

    Models were traced before; parameterizations read them there.
    """
    every = [(each.model, each.watch.structure) for each in (base, *models)]
    read = [(model, structure) for model, structure in every if structure is not None]
    scaled = []
    with reuse(read, inputs, passed):
        for each in models:
            scale = scaling(base.model, each.model, *inputs, **passed)
            changes: dict[str, Any] = {}
            if _is_plain(each.optimizer):
                changes["optimizer"] = each.optimizer(scale)
            if each.rules is not None:
                changes["rules"] = scale.rules(each.rules)
            known = scale if isinstance(scale, Scale) else None
            scaled.append(dataclasses.replace(each, scale=known, **changes))
    if models[0].rules is not None:
        return scaled
    small = base.measure_draw(key)
    return [
        dataclasses.replace(each, factors=each.fit_draws(small, key)) for each in scaled
    ]


def _note(scale: Scale | None) -> list[str]:
    """Notes what to know of a scale."""
    if scale is None:
        return []
    slow = [row for row in scale.values() if row.learns != 1]
    notes = [*scale.notes, *[_APPLIED] * bool(scale.forward)]
    return notes + [
        f"{_paths.shown(row.path)} learns less as the width grows, by the choice of "
        f"{scale.parameterization}: its update is shown as if it did not."
        for row in slow[:1]
    ]


def _read_sizes(sizes: Any) -> tuple[int, ...]:
    rule = "sizes must be two or more different integers, such as (64, 128, 256)."
    if not isinstance(sizes, (tuple, list, range)):
        raise check.Unfit(rule, TypeError, sizes=sizes)
    for size in sizes:
        check.at_least(1, sizes=size)
    if len(set(sizes)) < max(len(sizes), 2):
        raise check.Unfit(rule, sizes=sizes)
    return tuple(sorted(sizes))


def _check_functions(factory: Any, loss: Any, scaling: Any, optimizer: Any) -> None:
    if not callable(factory):
        rule = "factory must be a function of a size that makes a model, such as "
        rule += "lambda width: Net(width)."
        raise check.Unfit(rule, TypeError, factory=factory)
    if loss is not None and not callable(loss):
        rule = "loss must be a function of the output."
        raise check.Unfit(rule, TypeError, loss=loss)
    if scaling is not None and not callable(scaling):
        rule = "scaling must be a function of (base, target, *x), such as scaling.mup."
        raise check.Unfit(rule, TypeError, scaling=scaling)
    if _is_plain(optimizer) and (scaling is None or not callable(optimizer)):
        rule = "optimizer must be one of optax, such as optax.adam(1e-2); or, with a "
        rule += "scaling, a function of it: lambda scale: scale.adamw(1e-2)."
        raise check.Unfit(rule, TypeError, optimizer=optimizer)


def _is_plain(optimizer: Any) -> bool:
    """Returns whether something is no optimizer itself."""
    parts = (getattr(optimizer, name, None) for name in ("init", "update"))
    return not all(map(callable, parts))
