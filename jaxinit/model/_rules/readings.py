"""Readings: which axes of a kernel are inputs, which outputs.

Flax and Haiku store (inputs, outputs), Equinox and torch (outputs, inputs); attention
has an axis for heads, a mixture of experts one for experts. The bias, which is as large
as the outputs, the kernel's name and the kernels beside it tell which is which.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxinit._axes import Connections

_CONVOLUTION = re.compile(r"conv|patch|stem|downsample|cnn|^embedding$", re.IGNORECASE)
_HEADED = ("query", "key", "value", "joint")


class Reading(NamedTuple):
    """One way to read the axes of a kernel.

    Attributes:
      text: the axes, for people: ``"(inputs, outputs)"``.
      axes: the arguments of `fans` that say so.
    """

    text: str
    axes: dict[str, Any]

    def fans(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Returns fan_in and fan_out of a shape."""
        return Connections(**self.axes).fans(shape)


_FLAX = Reading("(inputs, outputs)", {})
_TORCH = Reading("(outputs, inputs)", {"in_axis": 1, "out_axis": 0})
_WINDOW_FIRST = Reading("(*window, inputs, outputs)", {})
_WINDOW_LAST = Reading("(outputs, inputs, *window)", {"in_axis": 1, "out_axis": 0})
_TO_HEADS = Reading("(inputs, heads, size)", {"in_axis": 0, "out_axis": (1, 2)})
_FROM_HEADS = Reading("(heads, size, outputs)", {"in_axis": (0, 1), "out_axis": 2})
_HEADS_FIRST = Reading("(heads, inputs, size)", {"in_axis": 1, "out_axis": (0, 2)})
_EXPERTS = Reading("(experts, inputs, outputs)", {"batch_axis": 0})
_EXPERTS_OF_TORCH = Reading(
    "(experts, outputs, inputs)", {"in_axis": 2, "out_axis": 1, "batch_axis": 0}
)
_LAYERS = Reading("(layers, inputs, outputs)", {"batch_axis": 0})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel, and the evidence for how to read its axes.

    Attributes:
      shape: its sizes.
      bias: the sizes of the bias beside it, if there is one.
      torch: whether its name is one that torch and Equinox use.
      owner: the name of its module.
      part: which part of a transformer its module is, as `Site.part`.
      in_attention: whether its module lies in an attention module.
      in_experts: whether its module lies among experts.
      beside: returns the sizes of the kernels of neighboring modules.
    """

    shape: tuple[int, ...]
    bias: tuple[int, ...] | None
    torch: bool
    owner: str
    part: str
    in_attention: bool
    in_experts: bool
    beside: Callable[[], Sequence[tuple[int, ...]]]

    def readings(self) -> tuple[Reading, ...]:
        """Returns the ways in which its axes can be read, the usual one first.

        There is more than one where neither name nor bias nor neighbors decide.
        """
        rank = len(self.shape)
        if self.bias is not None and len(self.bias) > 1:
            return self._by_wide_bias(self.bias)
        if rank == 2:
            return self._by_outputs(_FLAX, _TORCH)
        if rank == 3 and self.in_experts:
            return (_EXPERTS, _EXPERTS_OF_TORCH) if self.torch else (_EXPERTS,)
        if not self.torch and (heads := self._by_heads()):
            return heads
        convolves = _CONVOLUTION.search(self.owner) is not None
        odd = self.in_attention or "einsum" in self.owner
        if not convolves and (odd or (rank == 3 and not self.torch)):
            return self._unknown()
        return self._by_outputs(_WINDOW_FIRST, _WINDOW_LAST)

    def _by_outputs(self, jax: Reading, torch: Reading) -> tuple[Reading, ...]:
        """Chooses between two layouts by the bias, which is as large as the outputs."""
        usual, other = (torch, jax) if self.torch else (jax, torch)
        if not self.bias:
            return (usual, other) if self._has_window_of(other) else (usual,)
        first, second = (self.shape[x.axes.get("out_axis", -1)] for x in (usual, other))
        if self.bias[0] == first:
            return (usual,)
        return (other,) if self.bias[0] == second else (usual, other)

    def _has_window_of(self, other: Reading) -> bool:
        """Returns whether a square window stands where the other layout has it."""
        if len(self.shape) != 4:
            return False
        ends = self.shape[:2], self.shape[2:]
        window, rest = ends if other is _WINDOW_FIRST else ends[::-1]
        return window[0] == window[1] < min(rest[0], 16) and rest[0] != rest[1]

    def _by_wide_bias(self, bias: tuple[int, ...]) -> tuple[Reading, ...]:
        """Reads a kernel whose bias has axes for heads, experts or stacked layers."""
        shape, rank = self.shape, len(bias)
        if self.in_experts and len(shape) == 3 and bias == (shape[0], shape[2]):
            return (_EXPERTS,)
        if bias != shape[-rank:] or rank == len(shape):
            return (_FLAX,)  # a stack that nobody has named: `check_layer` says so
        first = len(shape) - rank
        text = f"({'inputs, ' * first}{', '.join(['outputs'] * rank)})"
        inputs = tuple(range(first)) if first > 1 else 0
        outputs = tuple(range(first, len(shape)))
        folded = Reading(text, {"in_axis": inputs, "out_axis": outputs})
        # Eight layers of 8 → 4 look like one of 8 → 8×4.
        layers = len(shape) == 3 and shape[0] == shape[1] and self.part not in _HEADED
        return (folded, _LAYERS) if layers else (folded,)

    def _by_heads(self) -> tuple[Reading, ...]:
        """Reads an axis for heads, told by the part or by the kernels beside it."""
        shape = self.shape
        if self.part in _HEADED:
            if len(shape) == 3:
                return (_TO_HEADS,)
            return () if shape[0] < 4 else (_joint(len(shape)),)
        if len(shape) != 3 or _CONVOLUTION.search(self.owner):
            return ()
        if self.part == "attention out":
            return (_FROM_HEADS,)
        others = self.beside()
        to_heads = (*shape[1:], shape[0]) in others
        from_heads = (shape[2], *shape[:2]) in others
        if to_heads == from_heads:
            return ()
        return (_TO_HEADS,) if to_heads else (_FROM_HEADS,)

    def _unknown(self) -> tuple[Reading, ...]:
        """Returns all readings of a kernel that no name explains."""
        if self.torch:
            return (_WINDOW_LAST, _WINDOW_FIRST)
        if len(self.shape) != 3:
            joint = () if self.shape[0] < 4 else (_joint(len(self.shape)),)
            return (_WINDOW_FIRST, *joint)
        if self.bias:  # as large as the outputs, which no heads divide
            last = (_WINDOW_FIRST, _FROM_HEADS) if self.bias[0] == self.shape[2] else ()
            return last + ((_WINDOW_LAST,) if self.bias[0] == self.shape[0] else ())
        return (_WINDOW_FIRST, _TO_HEADS, _FROM_HEADS, _HEADS_FIRST, _EXPERTS)


def _joint(rank: int) -> Reading:
    """Returns the reading of queries, keys and values in one: (inputs, 3, heads, …)."""
    outputs = tuple(range(1, rank))
    return Reading("(inputs, *outputs)", {"in_axis": 0, "out_axis": outputs})
