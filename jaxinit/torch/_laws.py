"""torch's initializers that do not depend on fans: uniform, normal, constants."""

import math

from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit import initializers
from jaxinit._draws import LEAST_MASS, filled
from jaxinit._initializer import Drawn
from jaxinit.random import normal_mass
from jaxinit.torch._form import fixed, random


@random
def uniform(a: float = 0.0, b: float = 1.0, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of uniform weights, by default from 0 to 1.

    Law: uniform on [a, b); Var[w] = (b - a)^2 / 12.

    Args:
      a: the lower end.
      b: the upper end, above a.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if b is not above a.

    Example:
      >>> bool(jaxinit.torch.uniform(2, 3)(jax.random.key(0), (9,)).min() >= 2)
      True

    References:
      PyTorch, torch.nn.init.uniform_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    a, b = check.real(a=a), check.real(b=b)
    if a >= b:
        raise check.Unfit(f"a must be below b, {b:g}.", a=a)
    return initializers.uniform(low=a, high=b)


@random
def normal(
    mean: float = 0.0, std: float = 1.0, dtype: DTypeLike | None = None
) -> Drawn:
    """Builds an initializer of normal weights.

    Law: normal, N(mean, std^2); Var[w] = std^2.

    Args:
      mean: mean of the weights.
      std: standard deviation, 0 or above.
      dtype: default dtype of the weights, float or complex.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if std is negative.

    Example:
      >>> w = jaxinit.torch.normal(std=0.02)(jax.random.key(0), (256, 512))
      >>> abs(float(w.std()) / 0.02 - 1) < 0.01
      True

    References:
      PyTorch, torch.nn.init.normal_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    std = check.not_negative(std=std)
    return initializers.normal(std, mean=check.real(mean=mean))


@random
def trunc_normal(
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    dtype: DTypeLike | None = None,
) -> Drawn:
    """Builds an initializer of normal weights between two bounds on the weights.

    Law: N(mean, std^2) given a < w < b; Var[w] as in `jaxinit.truncated_normal`.

    The bounds are values of the weights, not multiples of std: with torch's defaults
    and a small std nothing is cut.

    Args:
      mean: mean before truncation.
      std: standard deviation before truncation, above 0.
      a: the lower bound; -inf for none.
      b: the upper bound; inf for none.
      dtype: default dtype of the weights, real.

    Returns:
      An `Initializer`.

    Raises:
      ValueError: if std is not above 0, a not below b, or hardly any of the normal law
        lies between them.

    Example:
      >>> w = jaxinit.torch.trunc_normal(std=2.0)(jax.random.key(0), (256, 512))
      >>> float(abs(w).max()) <= 2
      True

    References:
      PyTorch, torch.nn.init.trunc_normal_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    if not check.real(std=std) > 0:
        raise check.Unfit("std must be above 0.", std=std)
    mean, far = check.real(mean=mean), 10 * std  # as good as no bound
    low = mean - far if _is(a, -math.inf) else check.real(a=a)
    high = mean + far if _is(b, math.inf) else check.real(b=b)
    if low >= high:
        raise check.Unfit(f"a must be below b, {high:g}.", a=a)
    ends = (low - mean) / std, (high - mean) / std
    if normal_mass(*ends) < LEAST_MASS:
        rule = f"less than {LEAST_MASS:g} of a normal law lies between a and b, "
        raise check.Unfit(f"{rule}{high:g}. Use wider bounds.", a=a)
    return initializers.truncated_normal(std, mean=mean, low=low, high=high)


def _is(value: object, number: float) -> bool:
    return isinstance(value, float) and value == number


@fixed
def constant(val: ArrayLike, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of one value.

    Law: w = val; Var[w] = 0.

    Args:
      val: the value, or an array that broadcasts to the shape.
      dtype: default dtype of the weights, any number type.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      TypeError: if val is not numeric.

    Example:
      >>> jaxinit.torch.constant(0.5)(None, (2,)).tolist()
      [0.5, 0.5]

    References:
      PyTorch, torch.nn.init.constant_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    return filled(val, "val")


@fixed
def ones(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of ones, as `jaxinit.ones`.

    Law: w = 1; Var[w] = 0.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Example:
      >>> jaxinit.torch.ones()(None, (2,)).tolist()
      [1.0, 1.0]

    References:
      PyTorch, torch.nn.init.ones_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    return initializers.ones()


@fixed
def zeros(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of zeros, as `jaxinit.zeros`.

    Law: w = 0; Var[w] = 0.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`; it ignores the key.

    Example:
      >>> jaxinit.torch.zeros()(None, (2,)).tolist()
      [0.0, 0.0]

    References:
      PyTorch, torch.nn.init.zeros_. 2019.
      https://docs.pytorch.org/docs/stable/nn.init.html
    """
    return initializers.zeros()
