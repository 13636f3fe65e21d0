"""Rules: which initializer each parameter of a model gets, by its path.

A rule is a pair (pattern, what): the first rule whose pattern matches a parameter gives
its value. A recipe is a list of rules.
"""

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _paths, _spec
from jaxinit._initializer import Initializer
from jaxinit._structure.result import Structure
from jaxinit.model._rules import arguments, stacks
from jaxinit.model._rules._traced import TracedSite, TracedSites, find_rows, fit_axes
from jaxinit.model._rules.arguments import is_parameter
from jaxinit.model._rules.assignments import Assignment, Assignments, unfit
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.defining import Law, RecipeRule, check_groups, meets
from jaxinit.model._rules.patterns import (
    Pattern,
    check_role,
    is_pattern,
    literal,
    spelt,
)
from jaxinit.model._rules.stacks import Stacked

Rule = tuple[Pattern, Any]


def reinit(
    key: jax.Array,
    params: Any,
    rules: Sequence[Rule],
    *,
    strict: bool | None = None,
    stacked: Stacked = None,
    structure: Structure | None = None,
) -> Any:
    """Draws the parameters of a model anew, by rules.

    Each parameter takes its key from its path, so that adding a layer changes no other.
    Everything is drawn as by `jit_init`: a program for each kind of parameter.

    Args:
      key: the PRNG key.
      params: any tree of arrays or of `jax.ShapeDtypeStruct`: variables or parameters
        of Flax Linen, a model or state of NNX, a module of Equinox, parameters of
        Haiku. Its keys, and leaves that are not arrays, stay as they are. A variable
        that a model of NNX shares between layers is drawn once, by its first path, and
        stays shared. In any other tree an array that occurs twice is two parameters, as
        it is to JAX.
      rules: pairs (pattern, what); the first that matches wins. A pattern is

        - a glob of the path: ``"**/attention/*/kernel"``, where ``*`` stands for a part
          and ``**`` for any number of parts; without a slash it matches the last part,
          at any depth;
        - a regular expression, ``re.compile(...)``, searched for in the path;
        - ``"role:residual"``, what a parameter does in the program, if its structure is
          given; ``"role:kernel"`` is every parameter with inputs and outputs, tables
          that are looked up aside. A parameter with several roles has each of them:
          ``"role:readout"`` means a tied table too, ``"role:value"`` the whole of a
          kernel for queries, keys and values;
        - sizes, with None for any: ``(None, None)`` is every matrix, ``(3, 3, ...)``
          every shape that begins with 3×3;
        - a function of (path, leaf) that returns whether it matches.

        ``what`` is

        - an initializer, of this library or any function of (key, shape, dtype), or
          the spec of one: ``"he_normal(gain='gelu')"``;
        - a value: a number, or an array of the parameter's shape;
        - None: the parameter stays as it is;
        - a function whose first argument is named ``path``, of (path, leaf, siblings),
          which returns one of these. Siblings are the leaves beside it by name, itself
          included, so that a bias can know its kernel.
      strict: whether a parameter without a rule, or a rule without a parameter, is an
        error. If not, such a parameter stays as it is. By default, None, it is an error
        only if a recipe does not find a part that defines it, such as the classifier,
        or has no rule for a matrix. False asks only that some rule matches.
      stacked: a pattern of the parameters whose first axis counts layers, as `nn.scan`
        and `nn.vmap` make them: ``"**/layers/**"``; or a mapping of patterns to the
        axis, or axes, that do: ``{"**/layers/**": 1}``. A rule sees such a parameter
        and its siblings as those of one layer; each layer gets a key of its own. What a
        structure tells of loops need not be said.
      structure: what `structure` says of the model. Rules may then name roles; laws of
        fans read the true inputs and outputs of each kernel, unless they name axes of
        their own; recipes go by the program in place of names; and a function's
        siblings have keys by role too: a bias finds its kernel as ``"role:kernel"``.

    Returns:
      The tree with new values: same shapes, dtypes and shardings.

    Raises:
      ValueError: if no rule matches anything, a recipe does not find a part that
        defines it, a parameter or rule is left over under strict, two parameters have
        one path, a value does not fit, a law of one layer meets a kernel whose bias
        shows that it is a stack, or a recipe meets a kernel whose axes can be read in
        two ways; the message names the path.
      TypeError: if a rule is not a pair (pattern, what).

    Example:
      >>> params = {"dense": {"kernel": jnp.ones((64, 64)), "bias": jnp.ones(64)}}
      >>> rules = [("kernel", jaxinit.he_normal()), ("**/bias", 0.0)]
      >>> drawn = reinit(jax.random.key(0), params, rules)
      >>> float(drawn["dense"]["bias"].sum())
      0.0
      >>> print(preview(params, rules))
      path          shape  dtype    rule     law             fans    std
      ────────────  ─────  ───────  ───────  ───────────  ───────  ─────
      dense/bias       64  float32  **/bias  0.0                –      0
      dense/kernel  64×64  float32  kernel   he_normal()  64 → 64  0.177
    """
    used = arguments.checked_key("reinit", key, params)
    assignments = _preview("reinit", params, rules, strict, stacked, structure)
    return assignments.draw(used)


def preview(
    params: Any,
    rules: Sequence[Rule],
    *,
    strict: bool | None = None,
    stacked: Stacked = None,
    structure: Structure | None = None,
) -> Assignments:
    """Tells what `reinit` would do, and draws nothing.

    Args:
      params: as for `reinit`.
      rules: as for `reinit`.
      strict: as for `reinit`.
      stacked: as for `reinit`.
      structure: as for `reinit`; each row then has its role.

    Returns:
      `Assignments`, which print as a table. Their ``draw(key)`` does what `reinit`
      does, and compiles once for all keys.

    Raises:
      ValueError: as `reinit`.
      TypeError: as `reinit`.

    Example:
      >>> params = {"dense": {"kernel": jax.ShapeDtypeStruct((64, 32), jnp.float32)}}
      >>> (row,) = preview(params, [("kernel", jaxinit.he_normal())]).rows
      >>> row.fans, row.std == (2 / 64) ** 0.5
      ((64, 32), True)
    """
    return _preview("preview", params, rules, strict, stacked, structure)


def _preview(
    call: str,
    params: Any,
    rules: Sequence[Rule],
    strict: bool | None,
    stacked: Stacked,
    structure: Structure | None,
) -> Assignments:
    arguments.check_strict(call, strict)
    given = arguments.listed(call, rules)
    checked = [_checked(call, rule, structure) for rule in given]
    found = _paths.by_path(call, _paths.split(params)[0], is_parameter)
    if not found:
        raise arguments.no_array(call, params)
    axes = stacks.axes(call, stacked, found)
    traced = {} if structure is None else find_rows(call, structure, found)
    axes |= {path: row.loops for path, row in traced.items() if row.loops}
    layers = {path: stacks.layer(x, axes.get(path, ())) for path, x in found.items()}
    sites = Sites(layers) if structure is None else TracedSites(layers, traced)
    rows = [
        _assigned(call, sites[path], leaf, checked, axes.get(path, ()))
        for path, leaf in found.items()
    ]
    used = {row.rule for row in rows}
    if strict is not False:
        check_groups(call, given, {row.path: row.rule for row in rows}, sites)
    unused = tuple(spelt(p) for i, (p, _) in enumerate(checked) if i not in used)
    idle = [  # a recipe's own may be idle: a model need not have all parts
        spelt(p)
        for i, (p, _) in enumerate(checked)
        if i not in used and not isinstance(given[i], RecipeRule)
    ]
    if (idle and strict) or used == {None}:
        missed = (idle or unused)[0]
        near = difflib.get_close_matches(missed, found) or list(found)[:3]
        near = [_paths.shown(path) for path in near]
        raise ValueError(
            f"{call}(rules=...): {missed} matches no parameter that is left for it. "
            f"Paths are such as {', '.join(near)}."
        )
    if strict and None in used:
        path = next(row.path for row in rows if row.rule is None)
        texts = [pattern for pattern, _ in checked if isinstance(pattern, str)]
        near_texts = check.suggestion(path, texts)
        glob = literal(path)
        cure = near_texts or f" To leave it as it is, add ({glob!r}, None)."
        shown = _paths.shown(path)
        raise ValueError(f"{call}(rules=...): no rule matches {shown}.{cure}")
    return Assignments(call, params, rows, unused)


def _checked(call: str, rule: Any, structure: Any) -> Rule:
    """Checks that a rule is a pair (pattern, what), and reads its spec."""
    if not isinstance(rule, (tuple, list)) or len(rule) != 2:
        raise TypeError(
            f"{call}(rules=...): a rule is a pair (pattern, initializer), not "
            f"{check.show(rule)}."
        )
    pattern, what = rule
    if isinstance(pattern, Initializer):
        raise TypeError(
            f"{call}(rules=...): the pattern stands before the initializer, and here "
            f"it stands behind. Write ({check.show(what)}, {pattern!r})."
        )
    if not is_pattern(pattern):
        raise TypeError(
            f"{call}(rules=...): a pattern is a glob, re.compile(...), a tuple of "
            f"sizes or a function of (path, leaf), not {check.show(pattern)}."
        )
    try:
        check_role(pattern, structure)
    except check.Unfit as error:
        raise error.at(f"{call}(rules=...)") from None
    if isinstance(what, str):
        try:
            return pattern, _spec.parse(what)
        except ValueError as error:
            raise ValueError(f"{call}(rules=...), {spelt(pattern)}: {error}") from None
    return pattern, what


def _assigned(
    call: str, site: Site, leaf: Any, rules: Sequence[Rule], axis: tuple[int, ...]
) -> Assignment:
    """Finds the rule and the law of one parameter."""
    path, layer, siblings = site.path, site.leaf, site.beside
    # NumPy's doubles get the dtype that JAX gives them.
    shape, dtype = tuple(leaf.shape), jax.dtypes.canonicalize_dtype(leaf.dtype)
    rule, pattern, law = None, "", None
    try:
        for place, (chosen, what) in enumerate(rules):
            pattern = spelt(chosen)
            if meets(chosen, site):
                rule, law = place, what
                break
        if callable(law) and _sees_siblings(law):
            near = site.relatives if isinstance(site, TracedSite) else siblings
            law = law(path, layer, near)
        law = law.of(site) if isinstance(law, Law) else law
        law = _spec.parse(law) if isinstance(law, str) else law
        if isinstance(site, TracedSite):
            law = fit_axes(law, site.row)
        else:
            stacks.check_layer(path, layer, siblings, law)
        law = stacks.stack(law, shape, axis)
        std, fans = _std(law, shape), stacks.fans(law, shape)
    except Exception as error:  # of any type: rules may have functions of the user's
        raise unfit(call, _paths.shown(path), pattern, error) from error
    pattern = pattern if rule is not None else ""
    role = site.row.role if isinstance(site, TracedSite) else ""
    return Assignment(path, shape, dtype, rule, pattern, law, std, fans, role)


def _sees_siblings(what: Any) -> bool:
    """Returns whether a rule gives a function of (path, leaf, siblings)."""
    if isinstance(what, Initializer) or not callable(what):
        return False
    try:
        names = list(inspect.signature(what).parameters)
    except (TypeError, ValueError):
        return False
    return names[:1] == ["path"]


def _std(law: Any, shape: tuple[int, ...]) -> float | None:
    """Returns the standard deviation that a law gives an entry."""
    if isinstance(law, Initializer):
        moments = law.moments(shape)
        return None if moments is None else float(moments.variance) ** 0.5
    if law is None or callable(law):
        return None
    value = np.asarray(law)
    if not jnp.issubdtype(value.dtype, np.number) or value.shape not in ((), shape):
        raise TypeError(
            f"{check.show(law)} is no initializer, and no number or array of the shape."
        )
    with np.errstate(invalid="ignore"):  # some values may not be finite
        return float(np.std(value.astype(complex))) if value.size else 0.0
