"""Input and output axes of a weight: fans from shapes, axes from einsum formulas.

Plain integers, no arrays. The convention is that of `jax.nn.initializers`: axes that
are not named by ``in_axis``, ``out_axis`` or ``batch_axis`` are the receptive field of
a convolution, and count toward both fans.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxinit import _check as check

Axes = int | Sequence[int]
Strides = int | tuple[int, ...] | list[int]


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


def layer_of(shape: tuple[int, ...], axis: Axes) -> tuple[int, ...]:
    """Returns the shape of one layer of a stack."""
    stack = positions(shape, axis=axis)
    return tuple(size for place, size in enumerate(shape) if place not in stack)


class Connections(NamedTuple):
    """How a weight connects inputs with outputs: the arguments of `fans`."""

    in_axis: Axes = -2
    out_axis: Axes = -1
    batch_axis: Axes = ()
    groups: int = 1
    strides: Strides = 1
    transposed: bool = False

    def check(self) -> None:
        """Raises `Unfit` if an argument is wrong whatever the shape."""
        for name in ("in_axis", "out_axis", "batch_axis"):
            check.axes(**{name: getattr(self, name)})
        check.at_least(1, groups=self.groups)
        check.sizes(strides=self.strides)
        check.boolean(transposed=self.transposed)

    def fans(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Computes `fans`; raises `Unfit` if they do not fit the shape."""
        if len(shape) < 2 and self.in_axis == -2:
            raise check.Unfit(
                "needs two axes to tell inputs from outputs. For a vector use "
                "normal(stddev=...), or name in_axis and out_axis.",
                shape=shape,
            )
        inputs = positions(shape, in_axis=self.in_axis)
        outputs = positions(shape, out_axis=self.out_axis)
        batch = positions(shape, batch_axis=self.batch_axis)

        def product(axes: Sequence[int]) -> int:
            return math.prod(shape[axis] for axis in axes)

        # 1 output is accepted: it may stand for 0, which any number of groups share.
        if product(outputs) > 1 and product(outputs) % self.groups:
            rule = f"groups={self.groups} do not divide the {product(outputs)} outputs."
            raise check.Unfit(rule, shape=shape)
        if 0 not in shape and len({*inputs, *outputs, *batch}) < len(
            inputs + outputs + batch
        ):
            # An axis in two roles divides twice, as in JAX. Flax relies on it: its
            # embedding of shape (vocabulary, features) names out_axis=0 beside the
            # default in_axis=-2, and so gets fan_in = features.
            field = math.prod(shape) / product(inputs)
            field = field / product(outputs) / product(batch)
            fan_in, fan_out = product(inputs) * field, product(outputs) * field
            return self._shared(shape, fan_in, fan_out, 0)
        every = range(len(shape))
        fan_in = product([axis for axis in every if axis not in outputs + batch])
        fan_out = product([axis for axis in every if axis not in inputs + batch])
        field_rank = len(shape) - len(inputs + outputs + batch)
        return self._shared(shape, fan_in, fan_out, field_rank)

    def _shared(
        self, shape: tuple[int, ...], fan_in: float, fan_out: float, field_rank: int
    ) -> tuple[float, float]:
        """Divides the fans by groups and strides, which leave connections out."""
        if isinstance(self.strides, (tuple, list)):
            strides = tuple(self.strides)
        else:
            strides = (self.strides,) * field_rank
        idle = not field_rank and self.strides not in (1, (), [])
        if len(strides) != field_rank or idle:
            rule = f"strides={self.strides} are not one for each of the {field_rank} "
            raise check.Unfit(rule + "axes of the receptive field.", shape=shape)
        step = math.prod(strides)
        if self.transposed:
            return _ratio(fan_in, step), _ratio(fan_out, self.groups)
        return fan_in, _ratio(fan_out, self.groups * step)


def _ratio(whole: float, parts: int) -> float:
    """Divides, keeping an integer where the parts are whole."""
    return whole // parts if whole % parts == 0 else whole / parts


def fans(
    shape: Sequence[int],
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    *,
    groups: int = 1,
    strides: Strides = 1,
    transposed: bool = False,
) -> tuple[float, float]:
    """Computes how many inputs feed one output, and how many outputs one input feeds.

    With the sizes of ``shape`` multiplied over sets of axes,
    fan_in = in_axis x field and fan_out = out_axis x field, where field, the receptive
    field of a convolution, is all axes that no argument names. Groups divide fan_out.
    Strides divide fan_out, or fan_in of a transposed convolution, on average over
    positions; padding is not counted.

    The arguments for the layers of Flax, Linen and NNX (the builders take the same):

    ========================================  ====================  ====================
    layer                                     shape given to init   arguments
    ========================================  ====================  ====================
    Dense, Linear                             (d, n)
    DenseGeneral, LinearGeneral, attention's  (in..., out...)       none: Flax folds it
    query, key, value, out                    flattened to two      to (inputs, outputs)
    DenseGeneral(batch_dims) of b stacked     (b x inputs, n)       none fits: multiply
    weights                                                         the gain by sqrt(b),
                                                                    in mode fan_in
    Einsum("bld,dhk->blhk")                   (d, h, k)             **axes(formula)
    fused q, k, v as an axis                  (d, 3, h, k)          in_axis=0,
                                                                    batch_axis=1,
                                                                    out_axis=(2, 3)
    fused q, k, v side by side                (d, 3 x n)            groups=3
    Conv                                      (*window, d, n)       strides
    Conv, grouped                             (*window, d / g, n)   groups=g, strides
    Conv, depthwise                           (*window, 1, n)       groups=d, strides
    ConvTranspose                             (*window, d, n)       strides,
                                                                    transposed=True
    ConvTranspose(transpose_kernel=True)      (*window, n, d)       the same, and
                                                                    in_axis=-1,
                                                                    out_axis=-2
    ConvLocal                                 (*positions,          batch_axis=positions
                                              window x d, n)        (fan_out is that of
                                                                    one position)
    Embed, as a lookup                        (vocabulary, n)       in_axis=(),
                                                                    batch_axis=0
    Embed, as the output layer (`attend`)     (vocabulary, d)       in_axis=1,
                                                                    out_axis=0
    LSTMCell, and Linen's GRUCell and         (d, n)
    OptimizedLSTMCell: each gate
    NNX's OptimizedLSTMCell: gates joined     (d, 4 x n)            groups=4
    NNX's GRUCell: gates joined               (d, 3 x n)            groups=3
    Bilinear form, (x, y) -> n                (d1, d2, n)           in_axis=(0, 1)
    `nn.scan`, `nn.vmap`                      of one layer          none: init is mapped
    stacked by hand                           (layers, d, n)        batch_axis=0, or
                                                                    `stacked` layers
    ========================================  ====================  ====================

    Args:
      shape: sizes of the weight.
      in_axis: the axis, or axes, that inputs run along.
      out_axis: the axis, or axes, that outputs run along.
      batch_axis: axes that stack independent weights; they count in neither fan.
      groups: how many blocks the outputs fall into, each with inputs, or a meaning, of
        its own: the groups of a convolution, or q, k and v side by side.
      strides: of a convolution; one for all axes of the receptive field, or one each.
      transposed: whether the convolution is transposed, so that strides spread inputs.

    Returns:
      (fan_in, fan_out): integers where they are whole.

    Raises:
      ValueError: if an axis does not exist, the default axes meet a vector, groups do
        not divide the outputs, or strides do not fit the receptive field.
      TypeError: if an argument that must be an integer is not one.

    Example:
      >>> fans((3, 3, 64, 128))  # a 3 x 3 convolution, 64 to 128 channels
      (576, 1152)
      >>> fans((3, 3, 1, 128), groups=64)  # depthwise, 64 to 128 channels
      (9, 18)
      >>> fans((4, 4, 64, 32), strides=2, transposed=True)
      (256, 512)
      >>> fans((8, 64, 128), batch_axis=0)  # eight stacked dense kernels
      (64, 128)
    """
    found = Connections(in_axis, out_axis, batch_axis, groups, strides, transposed)
    try:
        sizes = check.shape(shape)
        found.check()
        return found.fans(sizes)
    except check.Unfit as error:
        raise error.at("fans") from None


def axes(formula: str) -> dict[str, tuple[int, ...]]:
    """Reads the axis arguments of an einsum's kernel off the formula.

    Labels of the kernel that the output lacks are summed over: ``in_axis``. Labels that
    the output has and the input lacks are ``out_axis``; labels in all three stack
    independent kernels: ``batch_axis``.

    Args:
      formula: an einsum formula of two operands, the input first and the kernel second;
        the input and output may have an ellipsis.

    Returns:
      ``in_axis``, ``out_axis`` and ``batch_axis``, counted from the end, to be passed
      on: ``he_normal(**axes("bld,dhk->blhk"))``.

    Raises:
      ValueError: if the formula does not have this form.

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
