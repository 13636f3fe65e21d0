"""torch's defaults as rules."""

import math
import re
from typing import Any

from jaxinit import initializers as init
from jaxinit import torch
from jaxinit.model._rules._vocabulary import join
from jaxinit.model._rules.conventions import Site
from jaxinit.model._rules.defining import Law, Part, RecipeRule
from jaxinit.model._rules.readings import Reading
from jaxinit.model._rules.reinit import Rule
from jaxinit.model.recipes._form import (
    BIAS,
    EMBEDDING,
    GAIN,
    KERNEL,
    every_matrix,
    settle,
)

__all__ = ["torch_default"]

_TRANSPOSED = re.compile(r"transpose|deconv", re.IGNORECASE)
_CELLS = (  # recurrent cells: the kernel of the state, of the input, and all of them
    ("hi", "ii", r"[hi][ifgo]_?"),
    ("hn", "in", r"[hi][rzn]_?"),
    ("dense_h", "dense_i", r"dense_[hi]"),
    ("h", "i", r"[hi]"),
)


def torch_default() -> list[Rule]:
    """As torch initializes its layers.

    Law: kernels and biases uniform on ±1 / sqrt(fan_in), a bias by the fan_in of its
    own kernel; embeddings N(0, 1); norms 1 and 0; the slope of PReLU 0.25. For
    transposed convolutions torch counts the outputs as fan_in.

    Recurrent cells: all kernels and biases uniform on ±1 / sqrt(hidden).

    Attention, recognized by ``query``, ``key``, ``value`` and ``out`` side by side (or
    the names of Haiku and Equinox), as `torch.nn.MultiheadAttention`: the first three
    uniform on ±sqrt(6 / (inputs + 3 outputs)), or each by Xavier's law of its own if
    keys or values have another width; their biases and that of out 0. Under other names
    the layers of attention count as dense ones.

    Raises:
      ValueError: in `reinit`, if the axes of a kernel can be read in two ways.

    Example:
      >>> layer = {"bias": np.zeros(8), "kernel": np.zeros((64, 8), np.float32)}
      >>> rows = jaxinit.preview({"dense": layer}, recipes.torch_default()).rows
      >>> [abs(row.std**2 - 1 / (3 * 64)) < 1e-6 for row in rows]
      [True, True]

    References:
      PyTorch. torch.nn.modules: reset_parameters of each layer.
      https://docs.pytorch.org/docs/stable/nn.html
    """
    return [
        RecipeRule(KERNEL, Law(kernel_law), every_matrix("torch_default")),
        RecipeRule(EMBEDDING, torch.embedding()),
        RecipeRule(GAIN, 1.0),
        RecipeRule(BIAS, Law(bias_law)),
        RecipeRule(Part("PReLU's slope", "slope"), 0.25),
    ]


def kernel_law(site: Site) -> Any:
    """Returns torch's law of a kernel."""
    if hidden := _hidden(site):
        return torch.rnn(hidden)
    if site.multihead and site.part in ("query", "key", "value"):
        return settle(site, lambda reading: _attention(site, reading))
    if site.is_packed and site.part == "joint":
        return settle(site, lambda reading: _packed(site, reading))

    def dense(reading: Reading) -> Any:
        axes = reading.axes
        if _TRANSPOSED.search(site.owner):
            near, far = axes.get("in_axis", -2), axes.get("out_axis", -1)
            axes = axes | {"in_axis": far, "out_axis": near}
        return init.variance_scaling(1 / 3, "fan_in", "uniform", **axes)

    return settle(site, dense)


def bias_law(site: Site) -> Any:
    """Returns torch's law of a bias."""
    if hidden := _hidden(site):
        return torch.rnn(hidden)
    kernel = site.kernel
    if kernel is None or site.multihead is not None or site.is_packed:
        return 0.0

    def build(reading: Reading) -> Any:
        inputs, outputs = reading.fans(kernel.shape)
        return torch.bias(int(outputs if _TRANSPOSED.search(site.owner) else inputs))

    return settle(site, build)


def _attention(site: Site, reading: Reading) -> Any:
    """Returns the law of a query, key or value, as a part of one kernel or alone."""
    widths = {
        x.readings[0].fans(x.shape)[0]
        for role, x in (site.multihead or {}).items()
        if role != "out"
    }
    inputs, outputs = reading.fans(site.shape)
    return _xavier(inputs, outputs if len(widths) > 1 else 3 * outputs)


def _packed(site: Site, reading: Reading) -> Any:
    """Returns Xavier's law for all outputs of one kernel for query, key and value."""
    inputs, outputs = reading.fans(site.shape)
    return _xavier(inputs, outputs * reading.axes.get("groups", 1))


def _xavier(inputs: float, outputs: float) -> Any:
    """Returns the uniform law on ±sqrt(6 / (inputs + outputs))."""
    bound = math.sqrt(6 / (inputs + outputs))
    return init.uniform(low=-bound, high=bound)


def _hidden(site: Site) -> int | None:
    """Returns the size of a recurrent cell's state, if a parameter belongs to one."""
    for name, leaf in site.beside.items():
        if name.startswith("weight_hh"):
            return int(leaf.shape[-1])
        if name == "w_h":
            return int(leaf.shape[0])
    for state, entry, names in _CELLS:
        cell = state in site.cousins and entry in site.cousins
        if cell and re.fullmatch(names, site.owner):
            kernel = site.sites.kernel(join(site.parent, state))
            return None if kernel is None else kernel.shape[0]
    around = site.parent.rpartition("/")[2]  # the name of Haiku's cell
    if site.kernel is None or not re.fullmatch(r"linear(_\d+)?", site.owner):
        return None
    gates = 4 if "lstm" in around else 1 if "vanilla_rnn" in around else 0
    return site.kernel.shape[-1] // gates if gates else None
