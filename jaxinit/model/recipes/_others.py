"""Recipes for reinforcement learning and coordinates."""

import math
import re
from typing import Any

from jaxinit import _check as check
from jaxinit import initializers as init
from jaxinit.model._rules._traced import TracedSite
from jaxinit.model._rules.conventions import Site, Sites
from jaxinit.model._rules.defining import Law, Part, RecipeRule
from jaxinit.model._rules.readings import Reading
from jaxinit.model._rules.reinit import Rule
from jaxinit.model.recipes._form import (
    BIAS,
    KERNEL,
    NORMS,
    Patterns,
    by_fans,
    every_matrix,
    named,
    settle,
    torch_bias,
)

__all__ = ["ppo", "siren"]

# Actors and critics.

_WORDS = {
    "actor": {"actor", "policy", "pi", "action", "actions"},
    "critic": {"critic", "value", "values", "vf", "baseline"},
}


def ppo(
    actor: float = 0.01,
    critic: float = 1.0,
    *,
    hidden: float = math.sqrt(2),
    actor_head: Patterns | None = None,
    critic_head: Patterns | None = None,
) -> list[Rule]:
    """PPO: orthogonal weights, and a policy that is nearly uniform at first.

    Law: orthogonal, W^T W = gain^2 I, with gain actor for the last kernel of the
    policy, critic for that of the value function and hidden for all others, those of
    convolutions flattened; biases and the logarithm of a learned deviation 0, norms 1
    and 0.

    OpenAI's baselines and CleanRL have these gains; the paper says nothing. For the
    kernels of recurrent cells both have gain 1: give those a rule of their own.

    Heads are told by names such as ``actor``, ``policy``, ``critic``, ``value``. Where
    they do not tell and the structure of the model is known, its readouts are heads:
    those with one output are the critic's, if others have more, and those with several
    the actor's. One output alone may be either, and is an error.

    Args:
      actor: gain of the actor's heads.
      critic: gain of the critic's heads.
      hidden: gain of all other kernels.
      actor_head: patterns of the actor's last kernels; () for none.
      critic_head: patterns of the critic's last kernels; () for none.

    Raises:
      ValueError: if a gain is negative; in `reinit`, if a head is not found.

    Example:
      >>> layer = lambda outputs: {"kernel": np.zeros((64, outputs), np.float32)}
      >>> params = {"actor": layer(4), "critic": layer(1), "torso": layer(64)}
      >>> actor, critic, torso = jaxinit.preview(params, recipes.ppo()).rows
      >>> actor.law, critic.law
      (orthogonal(scale=0.01), orthogonal())

    References:
      Schulman, Wolski, Dhariwal, Radford, Klimov. Proximal Policy Optimization
      Algorithms. 2017. https://arxiv.org/abs/1707.06347
      Huang and others. CleanRL. 2022. https://arxiv.org/abs/2111.08819
    """
    gains = {"actor": actor, "critic": critic, "hidden": hidden}
    laws: dict[str, Law] = {}
    for name, gain in gains.items():
        try:
            laws[name] = _orthogonal(check.not_negative(**{name: gain}))
        except check.Unfit as error:
            raise error.at("recipes.ppo") from None
    heads = {"actor": actor_head, "critic": critic_head}

    def find(name: str) -> Part:
        words = f"last kernel of the {name}"
        return Part(words, "kernel", lambda site: _tell_head(site, heads) == name)

    def by_name(sites: Sites) -> bool:
        return not any(isinstance(site, TracedSite) for site in sites.values())

    rules: list[Rule] = []
    for name, given in sorted(heads.items(), key=lambda head: head[1] is None):
        usual = [(find(name), f"last kernel of the {name}")]
        rules += named("ppo", laws[name], given, usual, by_name, name=f"{name}_head")
    return [
        *rules,
        RecipeRule(find("either"), Law(_ask_head)),
        RecipeRule(KERNEL, laws["hidden"], every_matrix("ppo")),
        RecipeRule(_is_log_deviation, 0.0),
        *NORMS,
    ]


def _orthogonal(gain: float) -> Law:
    def build(reading: Reading) -> Any:
        column = reading.axes.get("out_axis", -1)
        batch = reading.axes.get("batch_axis", ())
        return init.orthogonal(gain, column, batch_axis=batch)

    return Law(lambda site: settle(site, build))


def _is_log_deviation(path: str, leaf: Any) -> bool:
    """Returns whether a parameter is the logarithm of a deviation, by its name."""
    name = re.split("[/.]", path)[-1]
    return re.search(r"log_?(std|scale|sigma)", name, re.IGNORECASE) is not None


_is_log_deviation.__name__ = "logarithm of a deviation"


def _ask_head(site: Site) -> Any:
    raise ValueError(
        "this may be the last kernel of the actor, or that of the critic. Say which: "
        f"recipes.ppo(actor_head={site.path!r}) or ppo(critic_head={site.path!r})."
    )


def _tell_head(site: Site, heads: dict[str, Any]) -> str:
    """Returns whose head a kernel is: "actor", "critic", "either", or "" for none."""
    if not isinstance(site, TracedSite):
        return _name_head(site)
    if site.part != "head":
        return ""
    if word := _read_word(site):
        return word
    for name, other in (("actor", "critic"), ("critic", "actor")):
        if heads[other] is not None:
            return name
    sites: Any = site.sites
    several = any(_outputs(each) > 1 for each in sites.traced if each.part == "head")
    if _outputs(site) > 1:
        return "actor"
    return "critic" if several else "either"


def _outputs(site: Site) -> float:
    return site.readings[0].fans(site.shape)[1] if site.kind == "kernel" else 0.0


def _name_head(site: Site) -> str:
    """Returns whose head a kernel is, by the names of its modules.

    It is the one kernel of a module whose own name says so, or the last that is
    numbered among those within such a module.
    """
    word = _read_word(site)
    near = [
        each
        for each in site.sites.values()
        if word and each.kind == "kernel" and _read_word(each) == word
    ]
    heads = [each for each in near if _say(each.owner) == word]
    if not heads and len(near) > 1:
        places = [(each, each.place) for each in near]
        heads = [x for x, place in places if place and place.order == place.total - 1]
    return word if (heads or near) == [site] else ""


def _read_word(site: Site) -> str:
    """Returns "actor" or "critic", if the innermost name that tells says so."""
    if site.part == "value":
        return ""
    names = (site.owner, *reversed(site.ancestors))
    return next(filter(None, map(_say, names)), "")


def _say(name: str) -> str:
    tokens = {token.lower() for token in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    said = [part for part, words in _WORDS.items() if tokens & words]
    return said[0] if len(said) == 1 else ""


# Coordinates.


def siren(omega: float = 30.0, *, first: Patterns | None = None) -> list[Rule]:
    """SIREN: networks of coordinates, whose activations are sines.

    Each layer is sin(omega (W x + b)), the first among them.

    Law: the first kernel uniform on ±1 / fan_in, all others on ±sqrt(6 / fan_in) /
    omega, and biases on ±1 / sqrt(fan_in).

    The paper has the second law, and omega = 30; the first law is that of the authors'
    code, which leaves biases at torch's default.

    The first layer is the one that is multiplied with the inputs, where the structure
    of the model is known. Else it is the one with the fewest inputs, if it is also the
    first of numbered layers or called first, input, or in.

    Args:
      omega: the factor within the sines, above 0.
      first: patterns of the first kernel; by default as above.

    Raises:
      ValueError: if omega is not above 0; in `reinit`, if the first layer is not found.

    Example:
      >>> sizes = ((2, 64), (64, 64), (64, 3))
      >>> params = {f"Dense_{i}": {"kernel": np.zeros(s)} for i, s in enumerate(sizes)}
      >>> first, *others = jaxinit.preview(params, recipes.siren()).rows
      >>> abs(first.std - 0.5 / 3**0.5) < 1e-6
      True
      >>> [abs(row.std - (2 / 64) ** 0.5 / 30) < 1e-6 for row in others]
      [True, True]

    References:
      Sitzmann, Martel, Bergman, Lindell, Wetzstein. Implicit Neural Representations
      with Periodic Activation Functions. 2020. https://arxiv.org/abs/2006.09661
    """
    try:
        if not (factor := check.real(omega=omega)) > 0:
            raise check.Unfit("omega must be above 0.", omega=omega)
    except check.Unfit as error:
        raise error.at("recipes.siren") from None
    usual = [(Part("first layer", "kernel", _is_first), "kernel of the first layer")]
    return [
        *named("siren", Law(_first), first, usual, name="first"),
        RecipeRule(
            KERNEL, by_fans(2 / factor**2, "fan_in", "uniform"), every_matrix("siren")
        ),
        RecipeRule(BIAS, Law(torch_bias)),
    ]


def _first(site: Site) -> Any:
    def build(reading: Reading) -> Any:
        bound = 1 / reading.fans(site.shape)[0]
        return init.uniform(low=-bound, high=bound)

    return settle(site, build)


def _is_first(site: Site) -> bool:
    """Returns whether a kernel is that of the first layer."""
    if isinstance(site, TracedSite):
        return "input" in site.row.roles
    kernels = [each for each in site.sites.values() if each.kind == "kernel"]
    inputs = {each.path: each.readings[0].fans(each.shape)[0] for each in kernels}
    fewer = [path for path, size in inputs.items() if size <= inputs[site.path]]
    if fewer != [site.path]:
        return False
    if re.fullmatch(r"first|input|in", re.sub(r"\d|_(layer|proj)", "", site.owner)):
        return True
    alike = [_numbers(x.module) for x in kernels if _stem(x) == _stem(site)]
    return len(alike) > 1 and _numbers(site.module) == min(alike)


def _numbers(module: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", module)]


def _stem(site: Site) -> str:
    return re.sub(r"\d+", "", site.module)
