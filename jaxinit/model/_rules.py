"""Rules: which initializer each parameter of a model gets, by its path.

A rule is a pair (pattern, what): the first rule whose pattern matches a parameter gives
its value. A recipe is a list of rules.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit import _columns, _spec
from jaxinit._initializer import Initializer
from jaxinit.model import _paths, _stacks
from jaxinit.model._conventions import Site, Sites
from jaxinit.model._defining import Law, RecipeRule, check_groups, meets
from jaxinit.model._init import InitFunction, jit_init, placed_of
from jaxinit.model._patterns import Pattern, is_pattern, spelt
from jaxinit.model._stacks import Stacked

Rule = tuple[Pattern, Any]


def reinit(
    key: jax.Array,
    params: Any,
    rules: Sequence[Rule],
    *,
    strict: bool | None = None,
    stacked: Stacked = None,
) -> Any:
    """Draws the parameters of a model anew, by rules.

    Each parameter takes its key from its path, so that adding a layer changes no other.
    Everything is drawn as by `jit_init`: a program for each kind of parameter.

    Args:
      key: the PRNG key.
      params: any tree of arrays or of `jax.ShapeDtypeStruct`: variables or parameters
        of Flax Linen, a model or state of NNX, a module of Equinox, parameters of
        Haiku. Its keys, and what is no array, stay as they are.
      rules: pairs (pattern, what); the first that matches wins. A pattern is

        - a glob of the path: ``"**/attention/*/kernel"``, where ``*`` stands for a part
          and ``**`` for any number of parts; without a slash it is the last part's
          name, at any depth;
        - a regular expression, ``re.compile(...)``, searched for in the path;
        - sizes, with None for any: ``(None, None)`` is every matrix, ``(3, 3, ...)``
          whatever begins with 3×3;
        - a function of (path, leaf) that returns whether it matches.

        What it gives is

        - an initializer, of this library or any function of (key, shape, dtype), or
          the spec of one: ``"he_normal(gain='gelu')"``;
        - a value: a number, or an array of the parameter's shape;
        - None: the parameter stays as it is;
        - a function whose first argument is named ``path``, of (path, leaf, siblings),
          which returns one of these. Siblings are the leaves beside it by name, itself
          among them, so that a bias can know its kernel.
      strict: whether a parameter without rule and a rule without parameter are errors.
        Else the parameter stays as it is; but by default, None, it is an error if a
        recipe finds nothing of what defines it, such as the classifier, or has no rule
        for a matrix. False asks for nothing.
      stacked: a pattern of the parameters whose first axis counts layers, as `nn.scan`
        and `nn.vmap` make them: ``"**/layers/**"``; or a mapping of patterns to the
        axis, or axes, that do: ``{"**/layers/**": 1}``. To a rule such a parameter and
        its siblings are those of one layer; each layer gets a key of its own.

    Returns:
      The tree with new values: same shapes, dtypes and shardings.

    Raises:
      ValueError: if no rule matches anything, a recipe finds nothing of what defines
        it, under strict if a rule is left over, if a value does not fit, a law of one
        layer meets a kernel whose bias shows that it is a stack, or a recipe a kernel
        whose axes can be read in two ways; the message names the path.
      TypeError: if a rule is none.

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
    try:
        used = check.key(key)
    except check.Unfit as error:
        raise error.at("reinit") from None
    return _preview("reinit", params, rules, strict, stacked).draw(used)


def preview(
    params: Any,
    rules: Sequence[Rule],
    *,
    strict: bool | None = None,
    stacked: Stacked = None,
) -> "Assignments":
    """Tells what `reinit` would do, and draws nothing.

    Args:
      params: as for `reinit`.
      rules: as for `reinit`.
      strict: as for `reinit`.
      stacked: as for `reinit`.

    Returns:
      `Assignments`, which print as a table. Their ``draw(key)`` does what `reinit`
      does, and compiles once for all keys.

    Raises:
      ValueError: as `reinit`.
      TypeError: as `reinit`.
    """
    return _preview("preview", params, rules, strict, stacked)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What a parameter gets.

    Attributes:
      path: of the parameter.
      shape: its sizes.
      dtype: its type.
      rule: number of the rule, None where none matches.
      pattern: that rule's pattern as text.
      law: the initializer, a number, an array, or None to leave the parameter as it is.
      std: the standard deviation that the law gives an entry; None where it is unknown.
      fans: fan_in and fan_out that the law reads off the shape; None if it reads none.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    rule: int | None
    pattern: str
    law: Any
    std: float | None
    fans: tuple[float, float] | None


class Assignments:
    """What every parameter of a tree gets.

    Attributes:
      rows: an `Assignment` for each parameter.
      unused: patterns of the rules that are first for no parameter.
    """

    def __init__(
        self,
        call: str,
        params: Any,
        rows: Sequence[Assignment],
        unused: tuple[str, ...],
    ):
        """Is called by `preview`."""
        self._call = call
        self.rows = tuple(rows)
        self.unused = unused
        self._params = params
        self._fill = self._filler()

    def draw(self, key: jax.Array) -> Any:
        """Returns the tree with the values that the key gives."""
        by_path = self._fill(key)
        leaves = []
        for path, leaf in _paths.named(self._params):
            leaves.append(by_path.get(path, leaf))
            if isinstance(leaves[-1], jax.ShapeDtypeStruct):
                raise ValueError(
                    f"{self._call}(params=...): {path} has no value that could stay. "
                    "Give it a rule."
                )
        return jax.tree.unflatten(jax.tree.structure(self._params), leaves)

    def _filler(self) -> InitFunction:
        changed = [row for row in self.rows if row.law is not None]

        def fill(key: jax.Array) -> dict[str, jax.Array]:
            return {row.path: _drawn(self._call, key, row) for row in changed}

        placed = {path: placed_of(leaf) for path, leaf in _paths.named(self._params)}
        shardings = {row.path: placed[row.path] for row in changed}
        filler = jit_init(
            fill, out_shardings=shardings if any(shardings.values()) else None
        )
        filler.plan(
            jax.eval_shape(lambda: jax.random.key(0))
        )  # finds what does not fit
        return filler

    def __str__(self) -> str:
        rows = [
            (
                row.path,
                "×".join(map(str, row.shape)) or "scalar",
                str(row.dtype),
                row.pattern if row.rule is not None else "–",
                "stays" if row.law is None else _law_text(row.law),
                "–" if row.fans is None else "{:g} → {:g}".format(*row.fans),
                "–" if row.std is None else f"{row.std:.3g}",
            )
            for row in self.rows
        ]
        heads = ("path", "shape", "dtype", "rule", "law", "fans", "std")
        lines = list(_columns.lines(heads, rows, left=(0, 2, 3, 4)))
        if self.unused:
            lines += ["", f"rules without a parameter: {', '.join(self.unused)}"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Assignments({len(self.rows)} parameters)"


def _preview(
    call: str, params: Any, rules: Sequence[Rule], strict: bool | None, stacked: Stacked
) -> Assignments:
    checked = [_checked(call, rule) for rule in rules]
    if not checked:
        raise ValueError(f"{call}(rules=...): there is no rule.")
    found = {path: x for path, x in _paths.named(params) if _is_parameter(x)}
    if not found:
        raise ValueError(f"{call}(params=...): there is no array in the tree.")
    axes = _stacks.axes(call, stacked, found)
    layers = {path: _stacks.layer(x, axes.get(path, ())) for path, x in found.items()}
    sites = Sites(layers)
    rows = [
        _assigned(call, sites[path], leaf, checked, axes.get(path, ()))
        for path, leaf in found.items()
    ]
    used = {row.rule for row in rows}
    if strict is not False:
        check_groups(call, rules, {row.path: row.rule for row in rows}, sites)
    unused = tuple(spelt(p) for i, (p, _) in enumerate(checked) if i not in used)
    idle = [  # a recipe has rules for what a model need not have
        spelt(p)
        for i, (p, _) in enumerate(checked)
        if i not in used and not isinstance(rules[i], RecipeRule)
    ]
    if (idle and strict) or used == {None}:
        missed = (idle or unused)[0]
        near = difflib.get_close_matches(missed, found) or list(found)[:3]
        raise ValueError(
            f"{call}(rules=...): {missed} matches no parameter that is left for it. "
            f"Paths are such as {', '.join(near)}."
        )
    if strict and None in used:
        path = next(row.path for row in rows if row.rule is None)
        texts = [pattern for pattern, _ in checked if isinstance(pattern, str)]
        near_texts = check.suggestion(path, texts)
        cure = near_texts or f" To leave it as it is, add ({path!r}, None)."
        raise ValueError(f"{call}(rules=...): no rule matches {path}.{cure}")
    return Assignments(call, params, rows, unused)


def _is_parameter(leaf: Any) -> bool:
    """Returns whether a leaf is an array of floats, or stands for one."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _checked(call: str, rule: Any) -> Rule:
    """Checks that a rule is one, and reads its spec."""
    try:
        pattern, what = rule
    except (TypeError, ValueError):
        raise TypeError(
            f"{call}(rules=...): a rule is a pair (pattern, initializer), not "
            f"{check.show(rule)}."
        ) from None
    if not is_pattern(pattern):
        raise TypeError(
            f"{call}(rules=...): a pattern is a glob, re.compile(...), a tuple of "
            f"sizes or a function of (path, leaf), not {check.show(pattern)}."
        )
    if isinstance(what, str):
        try:
            return pattern, _spec.parse(what)
        except ValueError as error:
            raise ValueError(f"{call}(rules=...), {spelt(pattern)}: {error}") from None
    return pattern, what


def _assigned(
    call: str, site: Site, leaf: Any, rules: Sequence[Rule], axis: tuple[int, ...]
) -> Assignment:
    """Finds what one parameter gets."""
    path, layer, siblings = site.path, site.leaf, site.beside
    fits = (i for i, (pattern, _) in enumerate(rules) if meets(pattern, site))
    rule = next(fits, None)
    chosen, what = ("", None) if rule is None else rules[rule]
    pattern = "" if rule is None else spelt(chosen)
    shape, dtype = tuple(leaf.shape), np.dtype(leaf.dtype)
    law: Any = what
    if callable(what) and _sees_siblings(what):
        law = what(path, layer, siblings)
    try:
        law = law.of(site) if isinstance(law, Law) else law
        law = _spec.parse(law) if isinstance(law, str) else law
        _stacks.check_layer(path, layer, siblings, law)
        law = _stacks.stack(law, shape, axis)
        std, fans = _std(law, shape), _stacks.fans(law, shape)
    except (ValueError, TypeError) as error:
        raise _unfit(call, path, pattern, error) from None
    return Assignment(path, shape, dtype, rule, pattern, law, std, fans)


def _sees_siblings(what: Any) -> bool:
    """Returns whether what a rule gives depends on the parameter."""
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
    return float(np.std(value.astype(complex))) if value.size else 0.0


def _drawn(call: str, key: jax.Array, row: Assignment) -> jax.Array:
    """Draws one parameter."""
    if not callable(row.law):
        return jnp.full(row.shape, row.law, row.dtype)
    try:
        made = row.law(_paths.key_of(key, row.path), row.shape, row.dtype)
        if made.shape != row.shape:
            raise ValueError(
                f"the initializer returned an array of shape {made.shape}."
            )
    except (ValueError, TypeError) as error:
        raise _unfit(call, f"{row.path} {row.shape}", row.pattern, error) from error
    weight: jax.Array = made.astype(row.dtype)
    return weight


def _unfit(call: str, path: str, pattern: str, error: Exception) -> Exception:
    """Returns an error that names the parameter and the rule."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{call}(rules=...), {path} by the rule {pattern}: {error}")


def _law_text(law: Any) -> str:
    if isinstance(law, (np.ndarray, jax.Array)) or not callable(law):
        return check.show(law)
    return repr(law) if isinstance(law, Initializer) else spelt(law)
