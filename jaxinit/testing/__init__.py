"""Assertions and hypothesis strategies for tests of initializers, yours included.

An assertion takes any function ``init(key, shape, dtype=None)``: one of jaxinit, of
`jax.nn.initializers`, or your own. It raises an AssertionError that says the rule, what
came instead, and the key. Keys are fixed unless you pass one, so that a test that has
passed keeps passing; tolerances follow from the dtype and from the law, the
distribution of the entries.

Needs SciPy and hypothesis where they are used: ``pip install 'jaxinit[testing]'``.
"""

from jaxinit.testing._assertions import assert_law as assert_law
from jaxinit.testing._assertions import assert_moments as assert_moments
from jaxinit.testing._assertions import assert_orthonormal as assert_orthonormal
from jaxinit.testing._assertions import assert_pure as assert_pure
from jaxinit.testing._case import LEVEL as LEVEL
from jaxinit.testing._dtypes import assert_distinct as assert_distinct
from jaxinit.testing._dtypes import assert_float64 as assert_float64
from jaxinit.testing._dtypes import (
    assert_same_in_every_dtype as assert_same_in_every_dtype,
)
from jaxinit.testing._flax import assert_plugs_into_flax as assert_plugs_into_flax
from jaxinit.testing._independence import assert_independent as assert_independent
from jaxinit.testing._independence import (
    assert_layers_independent as assert_layers_independent,
)
from jaxinit.testing._strategies import keys as keys
from jaxinit.testing._strategies import shapes as shapes
from jaxinit.testing._strategies import specs as specs
