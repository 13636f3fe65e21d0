"""Parts that recipes are made of: patterns, groups of rules, laws by fans."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit import torch
from jaxinit._initializer import Initializer
from jaxinit.model._rules._traced import TracedSite
from jaxinit.model._rules._vocabulary import Kind
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.defining import Group, Law, Part, RecipeRule, always
from jaxinit.model._rules.patterns import Pattern, spelt
from jaxinit.model._rules.readings import Reading
from jaxinit.model._rules.reinit import Rule

Patterns = Pattern | Sequence[Pattern]
_MOST = 10**12  # layers, or sizes: no model has more, and far more overflow floats

KERNEL = Part("kernel", "kernel")
EMBEDDING = Part("embedding", "embedding")
POSITION = Part("positions", "position")
GAIN = Part("norm's scale", "gain")
BIAS = Part("bias", "bias")
TOKEN = Part("token", "token")
NORMS: list[Rule] = [RecipeRule(GAIN, 1.0), RecipeRule(BIAS, 0.0)]


def parts(name: str, *chosen: str, kind: Kind = "kernel") -> Part:
    """Returns the pattern of parameters whose module is one of these parts."""
    return Part(name, kind, lambda site: site.part in chosen)


ATTENTION_OUT = parts("attention's output", "attention out")
MLP_OUT = parts("MLP's output", "mlp out")
HEAD = parts("head", "head")
_VALUE = parts("value", "value")
_WITH_VALUE = Part("value in a joint kernel", "kernel", lambda site: has_value(site))
_MLP = parts("MLP", "mlp in", "mlp out")


def count(recipe: str, least: int = 1, **argument: Any) -> int:
    """Returns the argument of a recipe as an integer, `least` or above."""
    try:
        found = check.at_least(least, **argument)
        if found > _MOST:
            ((name, _),) = argument.items()
            raise check.Unfit(f"{name} must be {_MOST} or below.", **argument)
    except check.Unfit as error:
        raise error.at(f"recipes.{recipe}") from None
    return found


def deviation(recipe: str, std: Any) -> float:
    """Returns the argument of a recipe as a standard deviation."""
    try:
        return check.not_negative(std=std)
    except check.Unfit as error:
        raise error.at(f"recipes.{recipe}") from None


def by_size(
    recipe: str,
    build: Callable[..., Any],
    read: Mapping[str, Callable[[Sites], float | None]],
    **given: int | None,
) -> Any:
    """Makes a law that depends on sizes of the model, such as the number of layers.

    Args:
      recipe: the recipe's name.
      build: makes the law, from the sizes by name.
      read: by name, reads a size from a model whose structure is known.
      **given: the sizes that are arguments of the recipe; None for what is read.
    """
    known = {
        name: count(recipe, **{name: size})
        for name, size in given.items()
        if size is not None
    }
    if len(known) == len(given):
        return build(**known)

    def of(site: Site) -> Any:
        sizes: dict[str, Any] = dict(known)
        for name in given.keys() - known.keys():
            sizes[name] = read[name](site.sites)
            if sizes[name] is None:
                raise ValueError(
                    f"recipes.{recipe} needs {name} here. Say recipes.{recipe}({name}="
                    "...), or pass structure=jaxinit.structure(model, x), if the model "
                    "has residual branches."
                )
        law = build(**sizes)
        return law.of(site) if isinstance(law, Law) else law

    return Law(of)


# What the program alone tells: see `TracedSites`.
SIZES: dict[str, Callable[[Sites], float | None]] = {
    "layers": lambda sites: getattr(sites, "layers", None),
    "width": lambda sites: getattr(sites, "width", None),
}


def every_matrix(recipe: str) -> Group:
    """Returns the group of a recipe's rule for kernels: every matrix needs a rule."""
    return Group(f"recipes.{recipe}", "kernel", covers=True)


def named(
    recipe: str,
    law: Any,
    given: Patterns | None,
    usual: Sequence[tuple[Pattern, str]],
    when: Callable[[Sites], bool] = always,
    *,
    name: str,
) -> list[Rule]:
    """Makes the rules for the parameters that an argument of a recipe names.

    Args:
      recipe: the recipe's name.
      law: the law of these parameters.
      given: the argument: patterns, each of which must match; None for `usual`.
      usual: patterns to use if none are given, with words for what they find.
      when: tells whether a model must match the usual patterns.
      name: the argument's name.
    """
    full = f"recipes.{recipe}"
    if given is None:
        return [
            RecipeRule(p, law, Group(full, words, name, when)) for p, words in usual
        ]
    return [
        RecipeRule(p, law, Group(full, f"parameter that fits {spelt(p)}", name))
        for p in listed(given)
    ]


def listed(given: Patterns) -> Sequence[Pattern]:
    """Returns patterns as a list; a single pattern becomes a list of one."""
    several = isinstance(given, (list, tuple)) and all(
        not isinstance(x, (int, type(None), type(...))) for x in given
    )
    return list(given) if several else [given]  # type: ignore[list-item, arg-type]


def scale_values(
    recipe: str,
    law: str,
    layers: int | None,
    factor: Callable[[float], float],
    tables: Callable[[float], float],
    scaled: Patterns | None,
) -> list[Rule]:
    """Makes the rules of Xavier's law, times a factor where values pass.

    Args:
      recipe: the recipe's name.
      law: of the entries of kernels.
      layers: the number of layers, or None.
      factor: computes the factor from the number of layers.
      tables: computes the factor of embeddings, of standard deviation 1 / sqrt(width).
      scaled: patterns of the kernels with the factor, or None.
    """

    def scale(layers: float) -> Law:
        return by_fans(factor(layers) ** 2, "fan_avg", law)

    def embed(layers: float) -> Law:
        size = tables(layers)
        return Law(lambda site: init.normal(size / math.sqrt(read_width(site))))

    def scale_part(layers: float) -> Law:
        scales = {"value": factor(layers) ** 2}
        return Law(lambda site: _by_parts(site, scales, "fan_avg", law))

    small = by_size(recipe, scale, SIZES, layers=layers)
    usual = [
        (_VALUE, "kernel of values"),
        (ATTENTION_OUT, "output projection of attention"),
    ]
    rules = named(recipe, small, scaled, usual, has_attention, name="scaled")
    if scaled is None:
        rules += named(recipe, small, None, [(_MLP, "kernel of an MLP")], name="scaled")
        joint = by_size(recipe, scale_part, SIZES, layers=layers)
        words = [(_WITH_VALUE, "kernel of values")]
        rules += named(recipe, joint, None, words, has_attention, name="scaled")
    return [
        *rules,
        RecipeRule(KERNEL, by_fans(1.0, "fan_avg", law), every_matrix(recipe)),
        RecipeRule(EMBEDDING, by_size(recipe, embed, SIZES, layers=layers)),
        *NORMS,
    ]


def read_width(site: Site) -> int:
    """Returns the width of an embedding: by its product, if it is the head too."""
    row = site.row if isinstance(site, TracedSite) else None
    axes = (row.in_axis or row.out_axis) if row is not None else ()
    return math.prod(site.shape[axis] for axis in axes or (-1,))


def has_value(site: Site) -> bool:
    """Returns whether a joint kernel makes values, at a place that is known."""
    joint = site.row.joint if isinstance(site, TracedSite) else None
    return joint is not None and "value" in joint.roles


def _by_parts(
    site: Site, scales: Mapping[str, float], mode: Any, law: Any
) -> Initializer:
    """Returns the law of variance scaling for each part of a joint kernel.

    Args:
      site: the kernel; its structure tells where the parts lie.
      scales: by role, the scale of a part; 1 for all others.
      mode: as for `by_fans`; fans are those of a part.
      law: as for `by_fans`.
    """
    assert isinstance(site, TracedSite) and site.row.joint is not None
    joint = site.row.joint
    axes = {name: axis for name, axis in site.row.axes.items() if name != "groups"}
    laws = [
        init.variance_scaling(scales.get(role, 1.0), mode, law, **axes)
        for role in joint.roles
    ]
    return init.concatenated(laws, joint.axis, joint.sizes, repeats=joint.repeats)


def has_unknown(sites: Sites) -> bool:
    """Returns whether a model has a kernel whose names do not tell what it is."""
    return any(site.kind == "kernel" and not site.part for site in sites.values())


def may_have_head(sites: Sites) -> bool:
    """Returns whether a model has a matrix that may be the classifier's.

    A part of a model, such as one block, has none, and no recipe asks for it.
    """
    kernels = [x for x in sites.values() if x.kind == "kernel" and not x.part]
    outside = [x for x in kernels if not (x.in_block or x.in_branch)]
    return any(math.prod(x.shape[:-2]) == 1 for x in outside)


def has_attention(sites: Sites) -> bool:
    """Returns whether a model has attention, or kernels that may be attention's."""
    kernels = [site for site in sites.values() if site.kind == "kernel"]
    ours = ("query", "key", "value", "joint", "attention out")
    return any(x.part in ours or (not x.part and x.ancestors) for x in kernels)


def by_fans(scale: float, mode: Any, law: Any) -> Law:
    """Makes the law of variance scaling, for the axes that a kernel shows."""

    def build(reading: Reading) -> Initializer:
        return init.variance_scaling(scale, mode, law, **reading.axes)

    return Law(lambda site: settle(site, build))


def settle(site: Site, build: Callable[[Reading], Any]) -> Any:
    """Returns the law of a kernel, if all ways to read its axes give the same.

    Raises:
      ValueError: if they do not; it prints what each way gives, and how to choose.
    """
    kernel = site.kernel or site
    laws = [(reading, build(reading)) for reading in kernel.readings]
    first = laws[0][1]
    if len(laws) == 1:
        return first
    spreads = [_spread(law, site.shape) for _, law in laws]
    if all(
        law == first or math.isclose(spread, spreads[0], rel_tol=1e-9)
        for (_, law), spread in zip(laws, spreads, strict=True)
    ):
        return first
    ways = " or ".join(
        "{}, {:g} → {:g}".format(reading.text, *reading.fans(kernel.shape))
        + (f", std {spread:.3g}" if math.isfinite(spread) else f", {law!r}")
        for (reading, law), spread in zip(laws, spreads, strict=True)
    )
    axes = ", ".join(f"{name}={value}" for name, value in laws[-1][0].axes.items())
    example = f"jaxinit.variance_scaling(..., {axes or 'in_axis=-2, out_axis=-1'})"
    raise ValueError(
        f"sizes {kernel.shape} can be read as {ways}. Say which by a rule before the "
        f"recipe's: ({site.path!r}, {example})."
    )


def _spread(law: Any, shape: tuple[int, ...]) -> float:
    """Returns the standard deviation that a law gives; nan if it is not known."""
    if not isinstance(law, Initializer):
        return abs(float(law))
    moments = law.moments(shape)
    return math.nan if moments is None else float(moments.variance) ** 0.5


def torch_bias(site: Site) -> Any:
    """Returns torch's law of a bias, by the fan_in of its kernel; 0 without one."""
    kernel = site.kernel
    if kernel is None:
        return 0.0
    return settle(site, lambda way: torch.bias(int(way.fans(kernel.shape)[0])))


def learned(law: Any) -> Law:
    """Makes the law of learned positions; a fixed table of sines stays as it is."""

    def of(site: Site) -> Any:
        if is_sine_table(site.leaf):
            return None
        return law.of(site) if isinstance(law, Law) else law

    return Law(of)


def is_sine_table(leaf: Any) -> bool:
    """Returns whether an array is a fixed table of sines and cosines.

    sin^2 + cos^2 = 1: in any order of the pairs, the squares of a row of D entries add
    up to D / 2. A row of zeros may stand for a class token. An array without values
    yet, as within jit, is not one.
    """
    concrete = isinstance(leaf, (np.ndarray, jax.Array))
    if not concrete or isinstance(leaf, jax.core.Tracer) or leaf.ndim < 2:
        return False
    if leaf.shape[-1] < 4 or not getattr(leaf, "is_fully_addressable", True):
        return False
    table = np.asarray(leaf).astype(np.float64)
    rows = np.square(table).sum(-1).ravel()
    rows = rows[rows != 0]
    sums = rows.size > 1 and np.allclose(rows, leaf.shape[-1] / 2, rtol=0.02)
    return bool(sums and abs(table).max() < 1.01)
