"""What a parameter is called, from all its uses."""

from collections.abc import Sequence

from jaxinit._structure._read.facts import Use

# In the order in which they are told, and what each is in the program.
ROLES = {
    "embedding": "its rows are chosen by data, or it is multiplied by one-hot rows",
    "query": "its product meets the keys' in a product of data",
    "key": "its product meets the queries'; the values are summed over the same axis",
    "value": "its product is summed with the weights that queries and keys make",
    "residual": "the last product of a branch that is added to what bypasses it",
    "recurrent": "multiplied with the carry of a loop, and the same at every step",
    "readout": "no other product between it and the output",
    "input": "multiplied with the model's inputs: they give its fan_in",
    "hidden": "multiplied with what other parameters made",
    "bias": "added right behind a product",
    "gain": "multiplied entry by entry",
    "offset": "added elsewhere, the same at every position, as behind a norm's gain",
    "table": "added to data, different at each position; joined to them; or like data",
    "state": "a rate in logarithms, multiplied entry by entry; or a loop's first carry",
    "other": "none of these, for the reason that is given",
}


def name_roles(uses: Sequence[Use]) -> tuple[str, ...]:
    """Names the roles of a parameter."""
    found = {role for use in uses for role in _name(use)}
    if len(found) > 1:
        found -= {"other"}
    if any(use.kind in ("product", "lookup") for use in uses):
        found -= {"bias"}  # a constant state times a weight is added, say
    return tuple(role for role in ROLES if role in found) or ("other",)


def _name(use: Use) -> set[str]:
    if use.kind == "lookup":
        return {"embedding"}
    if use.kind != "product":
        return {use.kind}
    if met := use.roles & {"query", "key", "value"}:
        return met
    for role in ("residual", "recurrent"):
        if role in use.roles:
            return {role}
    if "last" in use.roles:
        return {"readout"}
    return {"input"} if "input" in use.roles else {"hidden"}


def explain(uses: Sequence[Use]) -> str:
    """Tells why a role is not known."""
    reasons = dict.fromkeys(use.reason for use in uses if use.reason)
    return "; ".join(reasons) or "the output does not depend on it"
