"""Names and layouts, which all builders of torch's initializers share."""

import functools
from typing import Literal, get_args

from jaxinit import _check as check
from jaxinit._axes import Connections
from jaxinit._initializer import initializer

Layout = Literal["jax", "torch"]

random = functools.partial(initializer, namespace="torch")
fixed = functools.partial(initializer, namespace="torch", random=False)


class Kernel(Connections):
    """Connections chosen by layout, so that no message names an axis argument."""

    def fans(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """Computes the fans of a shape of two axes or more."""
        if len(shape) < 2:
            raise check.Unfit(
                "needs two axes to tell inputs from outputs. For a vector use "
                "torch.bias(fan_in) or torch.normal(std=...).",
                shape=shape,
            )
        return super().fans(shape)


def connections(layout: Layout) -> Kernel:
    """Returns the input and output axes of a layout."""
    check.choice(get_args(Layout), layout=layout)
    return Kernel(1, 0) if layout == "torch" else Kernel()
