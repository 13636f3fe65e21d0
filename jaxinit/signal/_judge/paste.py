"""Cures as code: initializers as each framework takes them.

Layers of Flax have an argument for the initializer, and so have Haiku's, which passes
no key to it. Those of Equinox have none, nor have plain functions: there the weights
are drawn anew, by the paths of those concerned.
"""

from collections.abc import Sequence

from jaxinit.signal._judge.evidence import Evidence

_HAIKU = "jaxinit.haiku({})"
_ARGUMENTS = {  # of layers in Flax and Haiku: of weights, biases, gains of norms
    "linen": ("kernel_init", "bias_init", "scale_init"),
    "nnx": ("kernel_init", "bias_init", "scale_init"),
    "haiku": ("w_init", "b_init", "scale_init"),
}
_REDRAWN = {"equinox": ("model", "model")}  # what is drawn anew, and its program
_FUNCTIONS = "params", "(init, apply)"


def set_weights(
    evidence: Evidence, initializer: str, where: Sequence[int], note: str = ""
) -> str:
    """Writes how the weights of some layers get an initializer.

    Args:
      evidence: the model.
      initializer: the code of one, such as "jaxinit.he_normal()".
      where: the layers.
      note: what is said behind the code.
    """
    if evidence.framework in _ARGUMENTS:
        return f"{_set_argument(evidence, 0, initializer)}{note}"
    paths = {evidence.layers[i].weight for i in where} - {""}
    return f"{_redraw(evidence, paths, initializer, fans=True)}{note}"


def set_biases(evidence: Evidence, where: Sequence[int]) -> str:
    """Writes how the biases of some layers start at zeros."""
    if evidence.framework in _ARGUMENTS:
        return _set_argument(evidence, 1, "jaxinit.zeros()")
    paths = {evidence.layers[i].bias for i in where} - {""}
    return _redraw(evidence, paths, "0.0")


def set_gains(evidence: Evidence, paths: Sequence[str]) -> str:
    """Writes how some gains start at ones."""
    if evidence.framework in _ARGUMENTS:
        return _set_argument(evidence, 2, "jaxinit.ones()")
    return _redraw(evidence, {*paths}, "1.0")


def _set_argument(evidence: Evidence, kind: int, initializer: str) -> str:
    argument = _ARGUMENTS[evidence.framework][kind]
    is_haiku = evidence.framework == "haiku"
    return f"{argument}={_HAIKU.format(initializer) if is_haiku else initializer}"


def _redraw(
    evidence: Evidence, paths: set[str], initializer: str, fans: bool = False
) -> str:
    """Writes a call of `reinit`; laws of fans read the inputs from the program."""
    what, model = _REDRAWN.get(evidence.framework, _FUNCTIONS)
    kept, globs = find_globs(paths, evidence.paths)
    pairs = [(path, "None") for path in kept] + [(glob, initializer) for glob in globs]
    rules = ", ".join(f'("{pattern}", {law})' for pattern, law in pairs)
    program = f", structure=jaxinit.structure({model}, x)" if fans else ""
    return f"{what} = jaxinit.reinit(key, {what}, [{rules}]{program})"


def find_globs(wanted: set[str], every: Sequence[str]) -> tuple[list[str], list[str]]:
    """Finds few globs that match some paths.

    Args:
      wanted: the paths to match.
      every: all paths.

    Returns:
      Paths that the globs match too, and the globs.
    """
    forms: dict[tuple[int, str], list[list[str]]] = {}
    for path in sorted(wanted, key=every.index):
        parts = path.split("/")
        end = "" if parts[-1].isdigit() else parts[-1]  # the places of a list differ
        forms.setdefault((len(parts), end), []).append(parts)
    others = [path.split("/") for path in every if path not in wanted]
    kept: list[str] = []
    globs: list[str] = []
    for (_, end), group in forms.items():
        if end and sum(form[1] == end for form in forms) == 1 < len(group):
            if not any(other[-1] == end for other in others):
                globs.append(f"**/{end}")
                continue
        columns = [{*column} for column in zip(*group, strict=True)]
        parts = [column.pop() if len(column) == 1 else "*" for column in columns]
        matched = ["/".join(other) for other in others if _fits(parts, other)]
        if len(group) > 1 and len(matched) <= len(group) // 2:
            kept.extend(matched)
            globs.append("/".join(parts))
        else:
            globs.extend("/".join(path) for path in group)
    return kept, globs


def _fits(glob: list[str], path: list[str]) -> bool:
    return len(glob) == len(path) and all(
        a in ("*", b) for a, b in zip(glob, path, strict=True)
    )
