"""jaxinit: chooses, draws and checks the initial weights of JAX models."""

from jaxinit._axes import axes as axes
from jaxinit._axes import fans as fans
from jaxinit._gain import gain as gain
from jaxinit._initializer import Initializer as Initializer
from jaxinit._initializer import Moments as Moments
from jaxinit._initializer import initializer as initializer
from jaxinit._initializer import parse as parse
from jaxinit.initializers import *  # noqa: F403
