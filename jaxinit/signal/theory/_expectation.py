"""Expectations of an activation f under one and two normal variables, by quadrature.

For one variable u of variance q: Gauss-Legendre quadrature on panels, with borders
where f bends.

Two variables u1, u2 of variance q and correlation c = 1 - r are written by independent
s and t, of variances q (2 - r) / 2 and q r / 2: u1 = s + t and u2 = s - t. Then

  E[f(u1) f(u2)] = E[f(u)^2] - D,  D = E[(f(s + t) - f(s - t))^2] / 2,

and D keeps its relative accuracy as r goes to 0. Where f bends at a, the integrand
bends on the lines s = a + t and s = a - t: borders of the panels in s, for every t. The
integral over s is smooth in t except where two such lines cross: borders of the panels
in t. For c < 0 the roles change, u2 = t - s, so that t is always the narrower one.

Derivatives with respect to a variance v need no derivatives of f, and so are right
where f bends: d/dv E[g(sqrt(v) z)] = E[g(sqrt(v) z) (z^2 - 1)] / (2 v) for z standard
normal, by two integrations by parts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinit import _check as check
from jaxinit._gain import ACTIVATIONS, Activation, activation, normal_density, on_panels

AnyActivation = Activation | str | tuple[str, float]  # the forms that users may pass

# Borders at 0 and where the usual activations bend, then further out, so that a
# saturating activation is resolved however large q is. Other bends are searched for: up
# to 8, within 16.
_BORDERS = np.array([-12, -6, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 6, 12])
_BENDS, _SOUGHT = 8, 16.0
_ZOOMS = 4  # each narrows the place of a bend down 68 times, from 2e-2 to 1e-9

# One variable: 8 panels per standard deviation, to 12. Two variables: the panels of s
# are 1/2 wide, to 9; those of t are _OUTER. Integrals of the normal density times a
# polynomial of moderate degree are then right to 1e-11.
_LINE = np.linspace(-12, 12, 193)
_INNER = np.linspace(-9, 9, 37)
_OUTER = np.array([0, 1.5, 3, 4.75, 7])
_OUTER_BORDERS = np.array([0.5, 2])  # of t itself
_EIGHT, _SIX = np.polynomial.legendre.leggauss(8), np.polynomial.legendre.leggauss(6)
_NODES = (_LINE.size + _BORDERS.size - 1) * 8  # of one variable, if no other bends

# Stand for the limits q = 0 and q = inf: squares still have all their digits here.
SMALLEST, LARGEST = 1e-200, 1e200


@partial(jax.jit, static_argnums=0)
def _apply(function: Activation, u: jax.Array) -> jax.Array:
    return jnp.asarray(function(u))


@partial(jax.jit, static_argnums=0)
def _differentiate(function: Activation, u: jax.Array) -> jax.Array:
    _, pullback = jax.vjp(lambda u: _apply(function, u).astype(u.dtype), u)
    return jnp.asarray(pullback(np.ones(u.shape, u.dtype))[0])


class Entrywise:
    """An elementwise function, written in JAX or NumPy, in float64."""

    def __init__(self, **function: Any):
        """Takes the function as a keyword, by the name that error messages give it."""
        ((self._name, self.original),) = function.items()
        self._function: Activation = self.original
        if getattr(self.original, "__hash__", None) is None:  # jit needs a hash
            self._function = lambda u: self.original(u)
        self._of_jax = True  # until the function refuses a tracer

    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Computes the function; u has one axis."""
        if self._of_jax:
            try:
                return self._check(_in_float64(_apply, self._function, u), u)
            except TypeError:
                self._of_jax = False
        with np.errstate(all="ignore"):
            return self._check(self._function(u), u)

    def derivative(self, u: np.ndarray) -> np.ndarray:
        """Computes the derivative, by JAX or, for NumPy, by central differences."""
        if self._of_jax:
            return _in_float64(_differentiate, self._function, u)
        step = 2e-7 * float(np.abs(u).max())  # balances rounding and curvature
        slope: np.ndarray = (self(u + step) - self(u - step)) / (2 * step)
        return slope

    def _check(self, value: Any, u: np.ndarray) -> np.ndarray:
        """Returns values in float64; raises if no activation can have them."""
        array: np.ndarray = np.asarray(value)
        if array.shape != u.shape:
            rule = f"the {self._name} must work on each entry alone and keep the shape."
            raise check.Unfit(rule, **{self._name: self.original})
        if np.iscomplexobj(array):
            rule = f"the {self._name} must be real."
            raise check.Unfit(rule, **{self._name: self.original})
        return array.astype(np.float64)


def _in_float64(
    run: Callable[[Activation, Any], jax.Array], function: Activation, u: np.ndarray
) -> np.ndarray:
    """Runs a JAX function, even while a model is traced."""
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        value: np.ndarray = np.asarray(run(function, u))
    return value


@dataclass(frozen=True)
class _Named:
    """A named activation; equal ones compile once, which partials would not."""

    name: str
    parameter: float | None

    def __call__(self, u: Any) -> Any:
        return activation(self.name, self.parameter)(u)


def resolve(function: Any) -> Activation:
    """Returns an activation from a name, a (name, parameter) pair or a function."""
    name, parameter = function, None
    if isinstance(function, tuple) and len(function) == 2:
        name, parameter = function
    if isinstance(name, str):
        check.choice(tuple(ACTIVATIONS), activation=name)
        activation(name, parameter)  # checks the parameter
        return _Named(name, None if parameter is None else float(parameter))
    if not callable(name):
        rule = "activation must be a name, a (name, parameter) pair or a function."
        raise check.Unfit(rule, TypeError, activation=function)
    chosen: Activation = name
    return chosen


def check_correlation(**argument: Any) -> float:
    """Returns the argument, a correlation, as a Python float."""
    ((name, _),) = argument.items()
    number = check.real(**argument)
    if abs(number) > 1:
        raise check.Unfit(f"{name} must lie between -1 and 1.", **argument)
    return number


def _find_bends(function: Entrywise) -> tuple[np.ndarray, bool]:  # [bends]
    """Finds the points at which a function bends, and whether it jumps.

    They have the largest second differences on a grid, then on finer grids about them.
    """
    grid = np.linspace(-_SOUGHT, _SOUGHT, _NODES)
    value = function(grid)
    if np.isnan(value).any():
        rule = "the activation must give a number for every real number."
        raise check.Unfit(rule, activation=function.original)
    scale = np.abs(value[np.abs(grid) < 3]).max()
    bend = np.pad(_second_differences(value), 1)
    peak = np.where((bend >= np.roll(bend, 1)) & (bend >= np.roll(bend, -1)), bend, 0)
    center = grid[np.argsort(peak)[-_BENDS:]]
    width = grid[1] - grid[0]
    sharp = np.ones(_BENDS, bool)
    for zoom in range(_ZOOMS):
        close = center[:, None] + width * np.linspace(-1.5, 1.5, _NODES // _BENDS)
        value = function(close.ravel()).reshape(close.shape)
        bend = _second_differences(value)
        center = np.take_along_axis(close, bend.argmax(1)[:, None] + 1, 1)[:, 0]
        width = 3 * width / (close.shape[1] - 1)
        # A change of slope by k makes a second difference up to k * width, which stands
        # out at once, and more so the smaller the width. A curvature k makes k *
        # width^2, and rounding in float32 makes 1e-7 everywhere.
        sharp &= bend.max(1) > 5e-3 * scale * width
        sharp &= (zoom > 0) | (bend.max(1) > 20 * np.median(bend, axis=1))
    bends = np.unique(center[sharp].round(8))
    with np.errstate(invalid="ignore"):
        rise = np.abs(np.diff(value))
    jump = rise.max(1) > np.maximum(1e-4 * scale, 10 * np.median(rise, axis=1))
    return bends, bool(jump.any())


def _second_differences(value: np.ndarray) -> np.ndarray:
    """Computes absolute second differences along the last axis; 0 beside infinities."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.abs(np.diff(value, 2)), posinf=0)


_INFINITIES = np.errstate(over="ignore", invalid="ignore")  # infinite values are valid


class Expectation:
    """Expectations of one activation f.

    Arguments: q is the variance, r = 1 - c the distance of the correlation from 1.
    """

    def __init__(self, function: AnyActivation, derivative: Any = None):
        """Takes f, and f' unless JAX's derivative is meant."""
        self._f = Entrywise(activation=resolve(function))
        bends, self._jumps = _find_bends(self._f)
        self._borders = np.union1d(_BORDERS, bends)
        lines = np.stack([bends, -bends])
        crossings = np.abs(lines[:, :, None] - bends).round(8) / 2
        self._outer_borders = np.union1d(_OUTER_BORDERS, crossings[crossings > 0])
        self._slope = None
        if derivative is not None:
            if not callable(derivative):
                rule = "derivative must be a function."
                raise check.Unfit(rule, TypeError, derivative=derivative)
            self._slope = Entrywise(derivative=derivative)
            self._slope(np.zeros(_NODES))  # checks shape and dtype

    @_INFINITIES
    def mean(self, q: float) -> float:
        """Computes E[f(u)]."""
        _, weight, value = self._line(self._f, q)
        return float(weight @ value)

    @_INFINITIES
    def square(self, q: float) -> float:
        """Computes E[f(u)^2]."""
        _, weight, value = self._line(self._f, q)
        return float(weight @ value**2)

    @_INFINITIES
    def square_growth(self, q: float) -> float:
        """Computes dE[f(u)^2] / dq, which is E[f'^2 + f f'']."""
        q = min(max(q, SMALLEST), LARGEST)
        z, weight, value = self._line(self._f, q)
        return float(weight @ (value**2 * (z**2 - 1))) / (2 * q)

    @_INFINITIES
    def slope_square(self, q: float) -> float:
        """Computes E[f'(u)^2], with the derivative that was passed, if any."""
        if self._slope is None:
            return self.slope_product(q, 0)
        _, weight, value = self._line(self._slope, max(q, SMALLEST))
        return float(weight @ value**2)

    @_INFINITIES
    def half_difference(self, q: float, r: float) -> float:
        """Computes E[(f(u1) - f(u2))^2] / 2, which is E[f(u)^2] - E[f(u1) f(u2)]."""
        return float(self._plane(q, r)[2].sum())

    @_INFINITIES
    def slope_product(self, q: float, r: float) -> float:
        """Computes E[f'(u1) f'(u2)], for 0 <= r <= 1; infinite at 0 where f jumps."""
        if r == 0:
            if self._jumps:
                return math.inf
            _, weight, value = self._line(self._f.derivative, max(q, SMALLEST))
            return float(weight @ value**2)
        x, y, part = self._plane(q, r)
        growth = (part.sum(1) @ (y**2 - 1)) / r - (part * (x**2 - 1)).sum() / (2 - r)
        return float(growth) / (2 * min(max(q, SMALLEST), LARGEST))

    def _line(
        self, function: Callable[[np.ndarray], np.ndarray], q: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # all [nodes]
        """Computes nodes in standard deviations, weights, and the function's values."""
        stddev = math.sqrt(min(q, LARGEST))
        borders = np.clip(self._borders / max(stddev, 1e-300), _LINE[0], _LINE[-1])
        z, weight = on_panels(np.sort(np.concatenate([_LINE, borders])), _EIGHT)
        value = np.where(weight > 0, function(stddev * z), 0)
        return z, weight * normal_density(z), value

    def _plane(self, q: float, r: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Computes nodes of s and t, in standard deviations, and their terms of D.

        Shapes: [rows, columns], [rows], [rows, columns].
        """
        q = min(max(q, SMALLEST), LARGEST)
        narrow = max(math.sqrt(q * min(r, 2 - r) / 2), 1e-300)
        wide = math.sqrt(q * max(r, 2 - r) / 2)
        borders = np.minimum(self._outer_borders / narrow, _OUTER[-1])
        edge = np.concatenate([_OUTER, borders])
        y, outer = on_panels(np.sort(edge), _EIGHT)
        outer *= 2 * normal_density(y)  # t < 0 mirrors t > 0
        t = narrow * y[:, None]
        bends = np.concatenate([self._borders + t, self._borders - t], axis=1) / wide
        fixed = np.broadcast_to(_INNER, (len(y), _INNER.size))
        edge = np.concatenate([fixed, np.clip(bends, _INNER[0], _INNER[-1])], axis=1)
        x, inner = on_panels(np.sort(edge), _SIX)
        inner *= normal_density(x)
        s = wide * x
        # Where c < 0, -t and s mirror t and -s: both halves in s, with t > 0.
        mirror = np.sign(x) if r > 1 else np.ones_like(x)
        pair = mirror * (s + t), (mirror if r <= 1 else -mirror) * (s - t)
        value = self._f(np.concatenate(pair, axis=None)).reshape(2, *x.shape)
        return x, y, outer[:, None] * inner * (value[0] - value[1]) ** 2 / 2
