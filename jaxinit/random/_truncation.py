"""Mass and moments of truncated normal laws, as numbers."""

import math


def normal_mass(lower: float, upper: float) -> float:
    """Computes the mass of the standard normal law between two bounds."""
    if (
        lower + upper > 0
    ):  # mirrored, since erfc keeps its digits in the lower tail only
        lower, upper = -upper, -lower
    return (math.erfc(-upper / math.sqrt(2)) - math.erfc(-lower / math.sqrt(2))) / 2


def truncated_moments(lower: float, upper: float) -> tuple[float, float]:
    """Computes mean and variance of the real `truncated_normal`.

    With density f and mass Z between the bounds a and b,
    mean = (f(a) - f(b)) / Z and variance = 1 + (a f(a) - b f(b)) / Z - mean^2.
    """

    def density(x: float) -> float:
        return math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    mass = normal_mass(lower, upper)
    mean = (density(lower) - density(upper)) / mass
    edge = (lower * density(lower) - upper * density(upper)) / mass
    return mean, 1 + edge - mean**2


def complex_truncated_variance(upper: float) -> float:
    """Computes E|z|^2 of the complex `truncated_normal`.

    With c = upper^2: E|z|^2 = 1 - c exp(-c) / (1 - exp(-c)).
    """
    c = upper**2
    return 1 - c * math.exp(-c) / -math.expm1(-c)
