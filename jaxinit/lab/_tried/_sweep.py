"""What a transfer trains: networks of several sizes, under several parameterizations.

A parameterization says how initial weights and learning rates of a network depend on
its size. It is a function of `jaxinit.scaling`, called with what `structure` says of a
base network and of the one to be trained; "sp", that of all libraries, changes nothing.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit import _paths, scaling
from jaxinit._import import load
from jaxinit._structure.result import Structure
from jaxinit._structure.structure import structure
from jaxinit.lab._tried import _call
from jaxinit.lab._tried._fitness import check_model, check_size
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried._option import several
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.experiment import (
    Experiment,
    assemble,
    draw_abstractly,
    fit_settings,
    name_network,
    read_settings,
)
from jaxinit.lab._tried.networks import TABLES, adapt_own
from jaxinit.lab._tried.rules import Rules
from jaxinit.lab._tried.settings import NETWORK, OPTIONS, Settings
from jaxinit.lab._tried.tasks import load_task
from jaxinit.model import jit_init

WIDTHS = (64, 128, 256, 512)
# Settings that a transfer does not have, or not under this name or in this sense.
LEFT_OUT = {"learning_rates", "target_loss", "early_stopping", "model"}
_MOST_RATES = 1000
_LEAST_RATES = 3  # a minimum lies between two others

Make = Callable[..., Any]  # from the structures of base and target to a scale or None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """All that a transfer trains.

    Attributes:
      task: the data.
      settings: the settings of the smallest network; one of its sizes varies.
      varied: which one.
      sizes: its values, in rising order.
      base: the size that the parameterizations start from.
      names: the parameterizations.
      exponents: log2 of the learning rates, rising.
      experiments: by parameterization and size, in the order of training: each has one
        initializer, and all seeds and learning rates.
      notes: what the parameterizations say of these networks.
    """

    task: Task
    settings: Settings
    varied: Literal["width", "depth"]
    sizes: tuple[int, ...]
    base: int
    names: tuple[str, ...]
    exponents: tuple[float, ...]
    experiments: dict[tuple[str, int], Experiment]
    notes: tuple[str, ...]


def design_sweep(
    *,
    model: Any,
    data: Any,
    task: str | None,
    widths: Any,
    depths: Any,
    base: int | None,
    parameterizations: Any,
    initializer: Any,
    lr: Any,
    lr_step: float,
    settings: dict[str, Any],
) -> Sweep:
    """Reads the arguments of `transfer`.

    Raises:
      ValueError: if something breaks its rule, or the parts do not fit each other.
      TypeError: if something is of a wrong type.
    """
    try:
        for name in LEFT_OUT & settings.keys():
            rule = "there is no such setting of transfer."
            raise check.Unfit(rule, TypeError, **{name: settings[name]})
        varied, sizes = _read_sizes(widths, depths, settings)
        base = sizes[0] if base is None else check.at_least(1, base=base)
        exponents = _read_rates(lr, lr_step)
        makers = _read_parameterizations(parameterizations)
        name, factory = _read_model(model)
        if factory is not None:
            _refuse_own(settings)
        given = settings | {varied: sizes[0], "model": name}
        asked = read_settings([initializer], data, given)
        asked = dataclasses.replace(
            asked, learning_rates=tuple(2.0**e for e in exponents)
        )
        loaded = data if isinstance(data, Task) else load_task(task, data)
        loaded, asked = fit_settings(loaded, asked, targeted=True)
        build = functools.partial(_build_network, loaded, asked, varied, factory)
        experiments, notes = _scale_all(
            loaded, asked, varied, sizes, base, makers, build
        )
    except check.Unfit as error:
        raise _rename(error, lr).at("transfer") from None
    except (ValueError, TypeError) as error:
        if not isinstance(unfit := getattr(error, "unfit", None), check.Unfit):
            raise
        raise _rename(unfit, lr).at("transfer") from None
    return Sweep(
        task=loaded,
        settings=asked,
        varied=varied,
        sizes=sizes,
        base=base,
        names=tuple(makers),
        exponents=exponents,
        experiments=experiments,
        notes=notes,
    )


def _rename(error: check.Unfit, lr: Any) -> check.Unfit:
    """Gives an argument the name that it has here, and rates their ends."""
    if error.name == "learning_rates":
        error.value = check.show(lr)
    names = {"initializers": "initializer", "learning_rates": "lr"}
    error.name = names.get(error.name, error.name)
    return error


def _read_sizes(
    widths: Any, depths: Any, settings: dict[str, Any]
) -> tuple[Literal["width", "depth"], tuple[int, ...]]:
    """Reads which size varies, and its values."""
    varied: Literal["width", "depth"] = "width" if depths is None else "depth"
    if depths is not None and widths is not None:
        rule = "give widths or depths, not both; width= is that of all depths."
        raise check.Unfit(rule, depths=depths)
    if varied in settings:
        rule = f"{varied} varies: give {varied}s."
        raise check.Unfit(rule, **{varied: settings[varied]})
    sizes = depths if widths is None else widths
    sizes = WIDTHS if sizes is None else sizes
    if not isinstance(sizes, (tuple, list)):
        rule = f"{varied}s must be a sequence of integers."
        raise check.Unfit(rule, TypeError, **{f"{varied}s": sizes})
    values = [check.at_least(1, **{f"{varied}s": size}) for size in sizes]
    return varied, tuple(sorted(several(f"{varied}s", values)))


def _read_rates(lr: Any, lr_step: float) -> tuple[float, ...]:
    """Returns log2 of the learning rates from one end to the other."""
    if not isinstance(lr, (tuple, list)) or len(lr) != 2:
        rule = "lr must be the lowest and the highest learning rate."
        raise check.Unfit(rule, TypeError, lr=lr)
    low, high = (check.real(lr=end) for end in lr)
    if not 0 < low < high:
        raise check.Unfit(
            "the lowest rate must be above 0 and below the highest", lr=lr
        )
    if not check.real(lr_step=lr_step) > 1:
        raise check.Unfit("lr_step must be above 1.", lr_step=lr_step)
    first, step = math.log2(low), math.log2(lr_step)
    count = math.floor((math.log2(high) - first) / step + 1e-6) + 1
    if not _LEAST_RATES <= count <= _MOST_RATES:
        rule = f"there must be {_LEAST_RATES} learning rates or more, {_MOST_RATES} at "
        rule += f"most, each lr_step times the one before; these are {count}."
        raise check.Unfit(rule, lr=lr)
    return tuple(first + step * i for i in range(count))


def sp(base: Structure, target: Structure, *inputs: Any) -> None:
    """The standard parameterization: one learning rate for all, laws by their fans."""


def list_parameterizations() -> dict[str, Make]:
    """Lists the parameterizations by name: the functions of a base and a target."""
    known = {
        name: function
        for name, function in vars(scaling).items()
        if inspect.isfunction(function)
        and list(inspect.signature(function).parameters)[:2] == ["base", "target"]
    }
    return {"sp": sp, **known}


def _read_parameterizations(given: Any) -> dict[str, Make]:
    """Reads names, calls such as "completep(alpha=0.5)", and functions."""
    if not isinstance(given, (tuple, list)):
        rule = "parameterizations must be a sequence. Put it in brackets."
        raise check.Unfit(rule, TypeError, parameterizations=given)
    table, names, makers = list_parameterizations(), [], []
    for one in given:
        if isinstance(one, str):
            example = "completep(alpha=0.5)"
            name, more = _call.read(table, example, 3, parameterizations=one)
            names.append(one.strip())
            makers.append(functools.partial(table[name], **more))
        elif callable(one):
            names.append(getattr(one, "__name__", type(one).__name__))
            makers.append(one)
        else:
            rule = "parameterizations must be names or functions of (base, target)."
            raise check.Unfit(rule, TypeError, parameterizations=one)
    several("parameterizations", names)
    return dict(zip(names, makers, strict=True))


def _refuse_own(settings: dict[str, Any]) -> None:
    """Refuses settings that a model of the user's would not see."""
    for name, value in settings.items():
        known = OPTIONS.get(name)
        if known is not None and known.group == NETWORK and value is not None:
            rule = (
                f"{name} is for the lab's own networks; a model of yours has its own."
            )
            raise check.Unfit(rule, **{name: value})


def _read_model(model: Any) -> tuple[str, Callable[[int], Any] | None]:
    """Returns the name of a model and, unless it is the lab's, what makes it."""
    if isinstance(model, str):
        return model, load(model) if ":" in model else None
    if not callable(model):
        rule = "model must be a name, or a function of the size that returns a model."
        raise check.Unfit(rule, TypeError, model=model)
    name = getattr(model, "__qualname__", type(model).__name__)
    return f"{getattr(model, '__module__', '')}:{name}", model


def _build_network(
    task: Task, settings: Settings, varied: str, factory: Any, size: int
) -> Network:
    """Builds the network of a size."""
    if factory is None:
        sized = _resize(settings, varied, size)
        # Drawn by rules, the layers of a loop need not be written out.
        return dataclasses.replace(name_network(task, sized), loop=None, redraw=None)
    try:
        made = factory(size)
    except Exception as error:  # whatever a user's code raises
        rule = f"fails for {varied} {size}: {check.brief(error)}"
        raise check.Unfit(rule, model=settings.model) from error
    network = adapt_own(made, task, settings.model)
    check_model(network, task, settings.model)
    return network


def _resize(settings: Settings, varied: str, size: int) -> Settings:
    """Returns the settings of a size."""
    changed: dict[str, Any] = {varied: size}
    return dataclasses.replace(settings, **changed)


class _PairWithState(NamedTuple):
    """A network as `structure` takes it; its name says that there is a state."""

    init: Callable[[jax.Array], Any]
    apply: Callable[..., Any]

    @classmethod
    def of(cls, network: Network, x: Any) -> "_PairWithState":
        """Makes a pair of a network that is called with inputs of the shape of x."""

        def init(key: jax.Array) -> Any:
            blank = jax.numpy.zeros(x.shape, x.dtype)
            variables = dict(network.init(key, blank))
            return variables.pop("params"), variables

        def apply(params: Any, state: Any, inputs: jax.Array) -> Any:
            return network.apply({**state, "params": params}, inputs), state

        return cls(init, apply)


def _scale_all(
    task: Task,
    settings: Settings,
    varied: str,
    sizes: Sequence[int],
    base: int,
    makers: dict[str, Make],
    build: Callable[[int], Network],
) -> tuple[dict[tuple[str, int], Experiment], tuple[str, ...]]:
    """Builds the experiment of each size under each parameterization; also notes."""
    x = jax.ShapeDtypeStruct((2, *task.x_train.shape[1:]), task.x_train.dtype)
    recipe = _list_rules(settings.initializers[0])
    if ":" not in settings.model:
        recipe += ((_is_table, TABLES),)
    experiments: dict[tuple[str, int], Experiment] = {}
    notes: dict[str, None] = {}  # each once, in order
    networks = {size: build(size) for size in sorted({base, *sizes})}
    read = {n: structure(_PairWithState.of(each, x), x) for n, each in networks.items()}
    constants = _list_constants(networks[base], x)
    for size in sizes:
        network, roles = networks[size], read[size]
        sized = _resize(settings, varied, size)
        for name, make in makers.items():
            scale = make(read[base], roles)
            _check_forward(name, scale)
            notes |= {f"{name}: {note}": None for note in getattr(scale, "notes", ())}
            rules = recipe if scale is None else scale.rules([*recipe, *constants])
            drawn = _name_rules(settings, name, rules, roles)
            run = assemble(
                task, dataclasses.replace(sized, initializers=(drawn,)), network, scale
            )
            check_size(draw_abstractly(run)["params"], run.settings)
            experiments[name, size] = run
    return experiments, tuple(notes)


def _check_forward(name: str, scale: Any) -> None:
    """Refuses a scale that the network as it stands does not carry out."""
    left = {p: x for p, x in dict(getattr(scale, "forward", {})).items() if x != 1}
    if left:
        first = [f"{_paths.shown(p)} by {x:.3g}" for p, x in [*left.items()][:3]]
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        rule = f"{name} must leave the network as it is, which would have to multiply "
        rule += f"what it makes of {', '.join(first)}{more}. Choose another"
        rule += ", or forward='absorbed'." if "forward=" in name else "."
        raise check.Unfit(rule, parameterizations=name)


def _list_rules(initializer: Any) -> tuple[Any, ...]:
    """Returns an initializer of all kernels as rules, or rules as they are."""
    if isinstance(initializer, Rules):
        return initializer.rules
    return (("role:kernel", initializer),)


def _list_constants(network: Network, x: Any) -> list[Any]:
    """Lists rules for what a network fills with one number, as it does its biases.

    A scale needs to know a law that it changes, and this is one that no rule states.
    """
    init, blank = jit_init(network.init), jax.numpy.zeros(x.shape, x.dtype)
    one, two = (_paths.named(init(jax.random.key(i), blank)["params"]) for i in (0, 1))
    rules = []
    for (path, leaf), (_, other) in zip(one, two, strict=True):
        # A single entry is equal to itself, also where it is drawn.
        values = np.stack([leaf, other]).ravel()
        if values.size and (values == values[0]).all():
            rules.append((functools.partial(_is_at, path), float(values[0])))
    return rules


def _is_table(path: str, leaf: Any) -> bool:
    """Returns whether a path is that of a table that a network of the lab looks up."""
    return path.endswith("embedding")


def _is_at(place: str, path: str, leaf: Any) -> bool:
    """Returns whether a path is that of a place: a pattern."""
    return path == place


def _name_rules(
    settings: Settings, name: str, rules: Sequence[Any], roles: Structure
) -> Rules:
    """Makes rules that say which parameterization they are of."""
    text = f"{settings.initializers[0]!r} under {name}"
    return Rules(text, tuple(rules), (), roles)
