"""What all builders of torch's initializers share: their names and layouts."""

import functools
from typing import Literal, get_args

from jaxinit import _check as check
from jaxinit._axes import Connections
from jaxinit._initializer import initializer

Layout = Literal["jax", "torch"]

random = functools.partial(initializer, namespace="torch")
fixed = functools.partial(initializer, namespace="torch", random=False)


def connections(layout: Layout) -> Connections:
    """Returns which axes feed which."""
    check.choice(get_args(Layout), layout=layout)
    return Connections(1, 0) if layout == "torch" else Connections()
