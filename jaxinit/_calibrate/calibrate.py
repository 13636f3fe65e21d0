"""`calibrate`: fits the scales of a model's layers to data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check_that
from jaxinit import _paths, _placement
from jaxinit._adapt.adapt import adapt
from jaxinit._adapt.functions import Model, bind_axes, of_arrays
from jaxinit._adapt.inputs import read_inputs, read_keywords, read_names
from jaxinit._calibrate._methods.admin import balance_branches
from jaxinit._calibrate._methods.autoinit import scale_by_theory
from jaxinit._calibrate._methods.between import equalize_rates
from jaxinit._calibrate._methods.lsuv import scale_whole
from jaxinit._calibrate._methods.rounds import run_rounds
from jaxinit._calibrate._methods.weight_norm import WITHIN, standardize_units
from jaxinit._calibrate._summary import list_layers
from jaxinit._calibrate.calibration import CalibrationReport
from jaxinit._calibrate.changes import Weights
from jaxinit._calibrate.passes import Aim, Pass, Solve
from jaxinit._calibrate.problem import Done, Problem
from jaxinit._calibrate.scales import find_layers
from jaxinit.model import jit_init, preview, reinit
from jaxinit.signal.adjusting import Program, disable_checks, fix_weights, prepare

MethodName = Literal["lsuv", "weight_norm", "within", "between", "autoinit", "admin"]
Stat = Literal["std", "unit"]


class _Method(NamedTuple):
    """What a method does, and which arguments it takes beside those of all."""

    run: Callable[[Problem], Done]
    takes: tuple[str, ...] = ()
    solve: Solve | None = None
    per_unit: bool = False
    offset: float | None = None
    tol: float = 0.05
    rounds: int = 10


_ROUNDS = "targets", "rounds", "tol"
_METHODS: dict[str, _Method] = {
    "lsuv": _Method(run_rounds, ("stat", *_ROUNDS), scale_whole),
    "weight_norm": _Method(run_rounds, _ROUNDS, standardize_units, True, 0.0, 1e-3),
    "within": _Method(run_rounds, _ROUNDS, standardize_units, True, WITHIN, 1e-3),
    "between": _Method(equalize_rates, ("rounds", "tol"), tol=0.01),
    "autoinit": _Method(scale_by_theory, ("targets",)),
    "admin": _Method(balance_branches),
}


def calibrate(
    model: Any,
    x: Any,
    *,
    key: jax.Array,
    method: MethodName = "lsuv",
    stat: Stat | None = None,
    targets: Sequence[tuple[Any, float | None]] = (),
    params: Any = None,
    rules: Sequence[tuple[Any, Any]] | None = None,
    rounds: int | None = None,
    tol: float | None = None,
    arguments: Mapping[str, Any] | None = None,
    streams: str | Sequence[str] = ("dropout",),
    axis_name: str | Sequence[str] = (),
) -> tuple[Any, CalibrationReport]:
    """Fits the scales of a model's layers to data.

    A layer is a matrix product or convolution of data with a weight, its bias included,
    as in `check`. The model is traced once, and one program measures all layers, and
    scales each before the next one sees its output: where no weights are shared, one
    pass calibrates all of them. Weights are then multiplied, and biases set; nothing
    else of the model changes, and the model itself does not.

    =============  =====================================================================
    method         what it does
    =============  =====================================================================
    "lsuv"         scales each layer in the order of execution, so that its output has
                   the standard deviation 1 over the data
    "weight_norm"  gives each unit mean 0 and standard deviation 1 over the data, by its
                   scale and its bias, where it has one; a model with weight
                   normalization by the scale of that
    "within"       the same with mean 0.1
    "between"      scales each layer so that all change at one rate: with G the gradient
                   of the output, weighted by random numbers, mean G^2 / mean W^2 is the
                   same for all layers of a residual branch, or of all that lies in
                   none, and the product of their factors is 1
    "autoinit"     computes each layer's scale by mean-field theory, in place of passes:
                   of the data only the mean square counts
    "admin"        where norms stand behind branches, multiplies what bypasses a branch
                   by omega, if a parameter does that, or divides the end of the branch
                   by it: omega^2 is 1 + the variances of all branches before
    =============  =====================================================================

    The result has no choice in the order: a layer's output depends on layers before it
    alone, so that the scales that give all of them their target are unique. What can be
    chosen are the targets. In a transformer each branch adds its target to the residual
    stream: 1 / sqrt(branches) for these keeps the variance of the stream below 2:
    ``targets=[("role:residual", 0.2)]``. Queries and keys of standard deviation 1 give
    logits of about 1; ``("role:query", None)`` leaves them to the model.

    A weight that is used in several places is scaled once, for the first of these.
    Layers stacked in a loop are scaled each by itself; one that all steps of a loop
    share, as over time, by what all steps give together, which may take several rounds.
    Tables of embeddings stay as they are, and so does a layer whose output is zero, as
    behind a kernel that begins with zeros.

    The pass runs on one device, and the bits are the same however weights and data are
    laid out over devices: both must fit it. Scaled weights keep their sharding.

    Args:
      model: as `check` takes it, or a model of NNX or Equinox that is built.
      x: the data: as `check` takes it. A large batch is better than several small ones.
      key: the key of the weights, of noise such as dropout, and of what a method draws.
      method: the method.
      stat: for "lsuv", whether the whole output of a layer counts, "std", the default,
        or each "unit" by itself.
      targets: pairs (pattern, standard deviation), with patterns as `reinit` has them;
        the first that matches a weight wins. None leaves its layer as it is, and is
        all that "between" and "admin" take. By default all are 1.
      params: weights to begin with, as `check` takes them. By default they are those of
        a model that is built, or drawn as `check` draws them.
      rules: rules for `reinit`, which draws the weights to begin with anew: LSUV's
        paper begins with ``[("role:kernel", jaxinit.orthogonal())]``.
      rounds: how often weights are scaled at most, for methods that repeat it; by
        default 10 times.
      tol: the relative error that is good enough; by default 0.05 for "lsuv", 0.001
        by unit, and 0.01 for "between"; the others compute once.
      arguments: keywords of the call, such as ``{"train": False}``.
      streams: names of the random streams that the call needs beside ``params``.
      axis_name: the name of an axis that the model reads, or several names.

    Returns:
      The weights, in the form of ``params``, or as the framework makes them: variables
      of Linen, a model of NNX or Equinox, the parameters of functions. And a
      `CalibrationReport`, with a row for each layer.

    Raises:
      ValueError: if an argument does not fit, no layer is found, or a method needs what
        the model has not.
      TypeError: if an argument has the wrong type. A model that fails raises its own
        error.

    Example:
      >>> import flax.linen as nn
      >>> model = nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(64), nn.tanh, nn.Dense(1)])
      >>> x = 5 * jax.random.normal(jax.random.key(1), (32, 16))
      >>> params, report = calibrate(model, x, key=jax.random.key(0))
      >>> report
      CalibrationReport(lsuv: 3 layers, std 1, 1 round)
      >>> bool(abs(model.apply(params, x).std() - 1) < 1e-3)
      True

    References:
      Mishkin, Matas. All you need is a good init. 2016. https://arxiv.org/abs/1511.06422
      Salimans, Kingma. Weight Normalization. 2016. https://arxiv.org/abs/1602.07868
      Krähenbühl, Doersch, Donahue, Darrell. Data-dependent Initializations of Convolutional Neural Networks. 2016. https://arxiv.org/abs/1511.06856
      Bingham, Miikkulainen. AutoInit: Analytic Signal-Preserving Weight Initialization for Neural Networks. 2023. https://arxiv.org/abs/2109.08958
      Liu, Liu, Gao, Chen, Han. Understanding the Difficulty of Training Transformers. 2020. https://arxiv.org/abs/2004.08249
    """  # noqa: E501
    try:
        key = _placement.release(check_that.key(key))
        chosen = _choose_method(method, stat, rounds, tol)
        read = read_keywords(arguments), read_names(streams=streams)
        axes = read_names(axis_name=axis_name)
        inputs = jax.tree.map(_placement.untyped, read_inputs(x))
        with disable_checks(), _placement.automatic():
            adapted = bind_axes(adapt(model, inputs, *read, built=True), axes)
            start = adapted if params is None else fix_weights(adapted, params, key)
            problem, stored = _pose(start, inputs, key, chosen, targets, rules)
            before = problem.measure()
            done = chosen.run(problem)
            layers = list_layers(problem, before, problem.measure(), done)
    except check_that.Unfit as error:
        raise error.at("calibrate", "model", "x") from None
    made = _finish(adapted, params, stored, problem, rules is not None)
    unseen = dict(problem.program.unseen)
    return made, CalibrationReport(method, layers, done.rounds, unseen)


def _choose_method(method: Any, stat: Any, rounds: Any, tol: Any) -> _Method:
    """Returns a method by its name, with what was chosen of it."""
    chosen = _METHODS[check_that.choice(list(_METHODS), method=method)]
    for name, value in (("stat", stat), ("rounds", rounds), ("tol", tol)):
        if value is not None and name not in chosen.takes:
            rule = f"{name} is no choice of {method!r}. Leave it out."
            raise check_that.Unfit(rule, **{name: value})
    if stat is not None:
        check_that.choice(["std", "unit"], stat=stat)
        chosen = chosen._replace(per_unit=stat == "unit")
    if rounds is not None:
        chosen = chosen._replace(rounds=check_that.at_least(1, rounds=rounds))
    if tol is not None:
        chosen = chosen._replace(tol=check_that.not_negative(tol=tol))
    return chosen


def _pose(
    model: Model,
    inputs: tuple[Any, ...],
    key: jax.Array,
    method: _Method,
    targets: Any,
    rules: Any,
) -> tuple[Problem, Any]:
    """Traces a model, draws its weights, and puts all on one device.

    Returns:
      The problem, and what the model stores, where it was.
    """
    drawing, ruling, noise, last = jax.random.split(key, 4)
    of = of_arrays(lambda _: model, inputs)
    flat = Model(lambda key: of.init(key, *of.arrays), of.apply)
    program = prepare(flat, tuple(of.arrays), noise)
    stored = _draw(flat, drawing)
    if rules is not None:
        structure = program.read_structure()
        stored = _draw_anew(ruling, stored[0], rules, structure), stored[1]
    layers = find_layers(program, method.per_unit)
    own = {layer.site.leaf for layer in layers}
    stds = _read_targets(program, own, targets, "targets" in method.takes)
    aims = [stds[layer.site.leaf] for layer in layers]
    aim = Aim(
        method.solve,
        [1.0 if std is None else std for std in aims],
        [std is not None for std in aims],
        method.offset,
        "targets" in method.takes,
    )
    device = _find_device(stored)
    arrays = jax.device_put(list(of.arrays), device)
    noise, last = jax.device_put((noise, last), device)
    return Problem(
        program=program,
        layers=layers,
        run=Pass(program, layers, arrays),
        weights=Weights(jax.device_put(stored, device)),
        inputs=arrays,
        noise=noise,
        key=last,
        aim=aim,
        rounds=method.rounds,
        tol=method.tol,
    ), stored


def _draw_anew(key: jax.Array, params: Any, rules: Any, structure: Any) -> Any:
    """Draws parameters by rules.

    Raises:
      ValueError: as `reinit`, in the name of `calibrate`.
      TypeError: likewise.
    """
    try:
        return reinit(key, params, rules, structure=structure)
    except (TypeError, ValueError) as error:
        raise check_that.retell(error, {"reinit(": "calibrate("}) from None


def _draw(model: Model, key: jax.Array) -> Any:
    """Draws what a model stores; weights that are given or built stay as they are."""
    made: list[Any] = []

    def init(key: jax.Array) -> Any:
        made[:] = [model.init(key)]
        return made[0]

    jax.eval_shape(init, key)
    given = not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(made))
    return made[0] if given else jit_init(model.init)(key)


def _find_device(stored: Any) -> Any:
    """Returns the first device that the weights are on."""
    for leaf in jax.tree.leaves(stored):
        if isinstance(leaf, jax.Array) and leaf.committed:
            devices: Any = leaf.sharding.addressable_devices
            return min(devices, key=lambda device: device.id)
    return jnp.zeros(()).sharding


def _read_targets(
    program: Program, own: set[int], targets: Any, takes: bool
) -> list[float | None]:
    """Returns the standard deviation for each parameter's layer."""
    structure = program.read_structure()
    assert structure is not None
    stds: list[float | None] = [1.0] * len(structure.rows)
    if not isinstance(targets, (list, tuple)):
        rule = "targets must be a list of pairs (pattern, standard deviation)."
        raise check_that.Unfit(rule, TypeError, targets=targets)
    if not targets:
        return stds
    for target in targets:
        std = target[-1] if isinstance(target, (list, tuple)) and target else target
        if std is not None and (check_that.real(targets=std) <= 0 or not takes):
            rule = "the standard deviations in targets must be above 0, or None"
            rule += "." if takes else "; this method takes None alone."
            raise check_that.Unfit(rule, targets=std)
    try:
        found = preview(
            program.stored[0], list(targets), strict=False, structure=structure
        )
    except (TypeError, ValueError) as error:
        words = {"preview(rules=": "calibrate(targets="}
        raise check_that.retell(error, words) from None
    laws = {row.path: row.law for row in found.rows if row.rule is not None}
    paths = [structure.rows[leaf].path for leaf in sorted(own)]
    met = {row.rule for row in found.rows if row.path in paths}
    if idle := [target for i, target in enumerate(targets) if i not in met]:
        near = ", ".join(map(_paths.shown, paths[:3]))
        rule = "matches no layer that is left for it. Weights of layers are such as "
        raise check_that.Unfit(f"{rule}{near}.", targets=idle[0])
    for number, row in enumerate(structure.rows):
        stds[number] = laws.get(row.path, stds[number])
    return stds


def _finish(
    model: Model, given: Any, stored: Any, problem: Problem, all_new: bool
) -> Any:
    """Returns the weights in the framework's own form, laid out as they came."""
    params, rest = stored
    leaves, tree = jax.tree.flatten(params)
    paths = problem.program.paths
    for number in problem.weights.changed:
        leaves[number] = _place(problem.weights.leaves[number], leaves[number])
    if given is None:
        return model.restore(jax.tree.unflatten(tree, leaves), rest)
    new = range(len(leaves)) if all_new else problem.weights.changed
    changed = {paths[number]: leaves[number] for number in new}
    state, merge = _paths.split(given)
    named = _paths.named(state)
    # A tree of Linen may have the collection of its parameters around their paths.
    inside = "" if {path for path, _ in named}.issuperset(paths) else "params/"
    made = [
        _place(changed.pop(path.removeprefix(inside)), leaf)
        if path.startswith(inside) and path.removeprefix(inside) in changed
        else leaf
        for path, leaf in named
    ]
    assert not changed, f"no place in params for {', '.join(changed)}"
    return merge(jax.tree.unflatten(jax.tree.structure(state), made))


def _place(value: Any, like: Any) -> jax.Array:
    """Lays a value out as another one is, and gives it that one's type."""
    made: jax.Array = jnp.asarray(np.asarray(value).astype(like.dtype))
    if isinstance(like, jax.Array) and like.committed:
        made = jax.device_put(made, like.sharding)
    return made
