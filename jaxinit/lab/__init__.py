"""The training lab: what initializers and parameterizations do to training.

A cell is one training run (initializer, seed, learning rate); the grid is all cells,
which train together as one compiled program. Needs the extra:
``pip install 'jaxinit[lab]'``.
"""

from jaxinit._import import explain_missing as _explain_missing

with _explain_missing("jaxinit.lab", "lab"):
    from jaxinit.lab._compare import DEFAULT_INITIALIZERS as DEFAULT_INITIALIZERS
    from jaxinit.lab._compare import compare as compare
    from jaxinit.lab._result.row import Row as Row
    from jaxinit.lab._show.comparison import Comparison as Comparison
    from jaxinit.lab._show.transferred import TransferResult as TransferResult
    from jaxinit.lab._transfer import transfer as transfer
    from jaxinit.lab._tried.data import Task as Task
    from jaxinit.lab._tried.data import digits as digits
    from jaxinit.lab._tried.data import load as load
    from jaxinit.lab._tried.settings import Settings as Settings
