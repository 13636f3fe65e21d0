"""Which axes of a weight feed which: fans from shapes, axes from einsum formulas.

Plain integers, no arrays. The convention is that of `jax.nn.initializers`: axes named
by neither ``in_axis``, ``out_axis`` nor ``batch_axis`` are the receptive field of a
convolution, and count towards both fans.
"""

import math
from collections.abc import Sequence

from jaxinit import _check as check

Axes = int | Sequence[int]


def positions(shape: tuple[int, ...], **argument: Axes) -> tuple[int, ...]:
    """Returns an axis argument as non-negative positions in the shape."""
    ((name, value),) = argument.items()
    axes = check.axes(**argument)
    rank = len(shape)
    found = tuple(axis + rank if axis < 0 else axis for axis in axes)
    for axis, position in zip(axes, found, strict=True):
        if not 0 <= position < rank:
            raise check.Unfit(
                f"{name}={value} names axis {axis}, which {rank} axes do not have.",
                shape=shape,
            )
    if len(set(found)) < len(found):
        raise check.Unfit(f"{name}={value} is axes {found}: one twice.", shape=shape)
    return found


def fan_sizes(
    shape: tuple[int, ...], in_axis: Axes, out_axis: Axes, batch_axis: Axes
) -> tuple[float, float]:
    """Computes `fans`, raising `Unfit`."""
    if len(shape) < 2 and in_axis == -2:
        raise check.Unfit(
            "needs two axes to tell inputs from outputs. For a vector use "
            "normal(stddev=...), or name in_axis and out_axis.",
            shape=shape,
        )
    inputs = positions(shape, in_axis=in_axis)
    outputs = positions(shape, out_axis=out_axis)
    batch = positions(shape, batch_axis=batch_axis)

    def product(axes: Sequence[int]) -> int:
        return math.prod(shape[axis] for axis in axes)

    if 0 not in shape and len({*inputs, *outputs, *batch}) < len(
        inputs + outputs + batch
    ):
        # An axis in two roles divides twice, as in JAX. Flax relies on it: its
        # embedding of shape (vocabulary, features) names out_axis=0 beside the default
        # in_axis=-2, and so gets fan_in = features.
        field = math.prod(shape) / product(inputs) / product(outputs) / product(batch)
        return product(inputs) * field, product(outputs) * field
    every = range(len(shape))
    fan_in = product([axis for axis in every if axis not in outputs + batch])
    fan_out = product([axis for axis in every if axis not in inputs + batch])
    return fan_in, fan_out


def fans(
    shape: Sequence[int],
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
) -> tuple[float, float]:
    """Computes how many inputs feed one output, and how many outputs one input feeds.

    With the sizes of ``shape`` multiplied over sets of axes,
    fan_in = in_axis x field and fan_out = out_axis x field, where field, the receptive
    field of a convolution, is all axes named by no argument.

    Args:
      shape: sizes of the weight.
      in_axis: the axis, or axes, that inputs run along.
      out_axis: the axis, or axes, that outputs run along.
      batch_axis: axes that stack independent weights; they count towards no fan.

    Returns:
      (fan_in, fan_out): integers, or floats where an axis is named in two roles.

    Raises:
      ValueError: if an axis does not exist, or the default axes meet a vector.

    Example:
      >>> fans((3, 3, 64, 128))  # a 3 x 3 convolution, 64 to 128 channels
      (576, 1152)
      >>> fans((8, 64, 128), batch_axis=0)  # eight stacked dense kernels
      (64, 128)
    """
    try:
        return fan_sizes(check.shape(shape), in_axis, out_axis, batch_axis)
    except check.Unfit as error:
        raise error.at("fans") from None


def axes(formula: str) -> dict[str, tuple[int, ...]]:
    """Reads the axis arguments of an einsum's kernel off the formula.

    Of the kernel's labels, those that the output lacks are summed over: ``in_axis``.
    Those that the output has and the input lacks are ``out_axis``; those in all three
    stack independent kernels: ``batch_axis``.

    Args:
      formula: an einsum formula of two operands, the input first and the kernel second;
        the input and output may have an ellipsis.

    Returns:
      ``in_axis``, ``out_axis`` and ``batch_axis``, counted from the end, to be passed
      on: ``he_normal(**axes("bld,dhk->blhk"))``.

    Raises:
      ValueError: if the formula is not of this form.

    Example:
      >>> axes("bld,dhk->blhk")  # a projection to h heads of size k
      {'in_axis': (-3,), 'out_axis': (-2, -1), 'batch_axis': ()}
      >>> axes("...gi,gio->...go")  # g independent groups
      {'in_axis': (-2,), 'out_axis': (-1,), 'batch_axis': (-3,)}
    """

    def fail(rule: str) -> Exception:
        return check.Unfit(
            rule + " Write it like 'bld,dhk->blhk'.", formula=formula
        ).at("axes")

    if not isinstance(formula, str):
        raise check.Unfit("formula must be a string.", TypeError, formula=formula).at(
            "axes"
        )
    operands, arrow, output = formula.replace(" ", "").partition("->")
    source, comma, kernel = operands.partition(",")
    if not arrow or not comma:
        raise fail("needs an input, a kernel and an output.")
    source, output = source.replace("...", ""), output.replace("...", "")
    for labels in (source, kernel, output):
        if labels and not (labels.isascii() and labels.isalpha()):
            raise fail(f"{labels!r} is not a row of letters.")
        if len(set(labels)) < len(labels):
            raise fail(f"{labels!r} has a letter twice.")
    if unknown := set(output) - set(source + kernel):
        raise fail(f"the output's {min(unknown)!r} is in no operand.")

    def where(belongs: dict[str, bool]) -> tuple[int, ...]:
        return tuple(
            axis - len(kernel) for axis, label in enumerate(kernel) if belongs[label]
        )

    return {
        "in_axis": where({c: c not in output for c in kernel}),
        "out_axis": where({c: c in output and c not in source for c in kernel}),
        "batch_axis": where({c: c in output and c in source for c in kernel}),
    }
