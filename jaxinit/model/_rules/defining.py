"""Rules of recipes, which know the part of a model that they are for.

A recipe is a plain list, which can be cut and joined; each of its rules carries the
group that it belongs to, so that the list still knows what it has to find.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxinit.model._rules._traced import TracedSite, TracedSites
from jaxinit.model._rules._vocabulary import Kind
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.patterns import ROLE, Pattern, is_role, matches


class Part:
    """A pattern that matches parameters by what they are, as `conventions` tells."""

    def __init__(
        self, name: str, kind: Kind, fits: Callable[[Site], bool] | None = None
    ):
        """Takes a name, the kind, and a further condition."""
        self.__name__ = name
        self.kind = kind
        self._fits = fits

    def __call__(self, path: str, leaf: Any) -> bool:
        """Returns whether a parameter matches, judged without its neighbors."""
        return self.meets(Sites({path: leaf})[path])

    def meets(self, site: Site) -> bool:
        """Returns whether a parameter matches."""
        return site.kind == self.kind and (self._fits is None or self._fits(site))

    def __repr__(self) -> str:
        return f"<{self.__name__}>"


@dataclasses.dataclass(frozen=True)
class Law:
    """The law of a recipe's rule, if it depends on what the parameter is."""

    of: Callable[[Site], Any]


def always(sites: Sites) -> bool:
    """Returns True: every model must have it."""
    return True


@dataclasses.dataclass(frozen=True)
class Group:
    """Rules of a recipe, of which one must match a parameter.

    Attributes:
      recipe: the recipe's name.
      what: the parameters that they are for, in words.
      argument: the recipe's argument that names these; "" if there is none.
      when: tells whether a model must have such parameters.
      covers: whether every matrix must have a rule.
    """

    recipe: str
    what: str
    argument: str = ""
    when: Callable[[Sites], bool] = always
    covers: bool = False


class RecipeRule(tuple[Any, Any]):
    """A rule of a recipe: a pair (pattern, what) with its group.

    Attributes:
      group: the rules that it belongs to; None if a model need not match it.
    """

    group: Group | None

    def __new__(
        cls, pattern: Pattern, what: Any, group: Group | None = None
    ) -> "RecipeRule":
        """Makes the pair."""
        rule = super().__new__(cls, (pattern, what))
        rule.group = group
        return rule

    def __getnewargs__(self) -> tuple[Any, Any, Group | None]:
        """Returns the arguments that copies are made from."""
        return (*self, self.group)


def meets(pattern: Pattern, site: Site) -> bool:
    """Returns whether a pattern matches a parameter."""
    if isinstance(pattern, Part):
        return pattern.meets(site)
    if is_role(pattern):
        role = pattern.removeprefix(ROLE)
        known = site.row.roles if isinstance(site, TracedSite) else ()
        return role in known or (role == "kernel" == site.kind)
    return matches(pattern, site.path, site.leaf)


def check_groups(
    call: str, rules: Sequence[Any], assigned: Mapping[str, Any], sites: Sites
) -> None:
    """Raises if rules that define a recipe match no parameter.

    Args:
      call: the public function.
      rules: as they were given.
      assigned: by path, the number of each parameter's rule; None if it has none.
      sites: the parameters.
    """
    groups: dict[Group, list[int]] = {}
    for place, rule in enumerate(rules):
        if isinstance(rule, RecipeRule) and rule.group is not None:
            groups.setdefault(rule.group, []).append(place)
    used = {*assigned.values()}
    for group, places in groups.items():
        # An earlier rule of the user's may have taken the parameters that match.
        patterns = [rules[place][0] for place in places]
        if used.isdisjoint(places) and not any(
            meets(pattern, site) for site in sites.values() for pattern in patterns
        ):
            if group.when(sites):
                raise _missing(call, group, sites)
    covering = [group for group in groups if group.covers]
    if covering:
        _check_matrices(call, covering[0], assigned, sites)


def _check_matrices(
    call: str, group: Group, assigned: Mapping[str, Any], sites: Sites
) -> None:
    """Raises if a matrix has no rule: the recipe does not know its name."""
    collected = any(path.startswith("params/") for path in sites)
    for path, site in sites.items():
        counts = not collected or path.startswith("params/")
        if counts and assigned[path] is None and len(site.shape) > 1:
            why = "its name tells nothing"
            if isinstance(site, TracedSite):
                why = f"its role is {site.row.role}"
            raise ValueError(
                f"{call}(rules=...): {group.recipe} has no rule for {path}, of sizes "
                f"{site.shape}: {why}. Give it one of its own, "
                f"({path!r}, jaxinit.normal(0.02)), or ({path!r}, None) to leave it as "
                "it is; strict=False leaves all such as they are."
            )


def _missing(call: str, group: Group, sites: Sites) -> ValueError:
    """Returns the error that names the parameters not found, and the cure."""
    kernels = [path for path, site in sites.items() if len(site.shape) > 1]
    paths = ", ".join((kernels or list(sites))[:4])
    cure = f" Name it: {group.recipe}({group.argument}=(pattern, ...))."
    read = " To go by the program, pass structure=jaxinit.structure(model, x)."
    return ValueError(
        f"{call}(rules=...): {group.recipe} finds no {group.what} here. Paths are such "
        f"as {paths}.{cure if group.argument else ''}"
        f"{'' if isinstance(sites, TracedSites) else read} To do without, say "
        "strict=False."
    )
