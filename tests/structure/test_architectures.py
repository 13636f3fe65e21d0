"""What each parameter of many architectures does, against what is written by hand."""

from fnmatch import fnmatchcase

import jax
import pytest
from attentions import ATTENTIONS
from blocks import TRANSFORMERS
from convolutional import CONVOLUTIONAL
from derivatives import DERIVATIVES
from experts import EXPERTS
from feedforward import FEEDFORWARD
from latent import LATENT
from marks import slow_but
from mixtures import MIXTURES
from operators import OPERATORS
from recurrent import RECURRENT
from repeated import REPEATED
from streams import STREAMS
from transposed import TRANSPOSED
from unusual_table import UNUSUAL

import jaxinit

PARTS = [
    *(FEEDFORWARD, CONVOLUTIONAL, TRANSPOSED, ATTENTIONS, TRANSFORMERS, EXPERTS),
    *(REPEATED, RECURRENT, UNUSUAL, LATENT, DERIVATIVES, MIXTURES, STREAMS, OPERATORS),
]
TABLE = {name: each for part in PARTS for name, each in part.items()}
FIRST = [name for part in PARTS for name in list(part)[:4]]


def look_up(path, expected):
    """Returns the pattern of a path: the first that fits."""
    return next((each for each in expected if fits(path, each)), None)


def fits(path, pattern):
    return fnmatchcase(path, pattern) or fnmatchcase("/" + path, pattern)


def read(row):
    return row.role if row.fans is None else (row.role, row.fans)


@pytest.mark.parametrize("name", slow_but(FIRST, TABLE))
def test_roles_and_fans(name):
    each = TABLE[name]
    with jax.numpy_dtype_promotion("standard"):
        found = jaxinit.structure(each.model, *each.inputs, **each.keywords)
    patterns = {path: look_up(path, each.expected) for path in found}
    expected = {path: each.expected.get(one) for path, one in patterns.items()}
    assert {path: read(row) for path, row in found.items()} == expected
    assert set(patterns.values()) == set(each.expected)  # each is of some parameter
    assert found.branches == each.branches


def test_the_table_is_whole():
    assert len(TABLE) > 147
    others = (EXPERTS, TRANSPOSED, ATTENTIONS, TRANSFORMERS, LATENT)
    others += (DERIVATIVES, MIXTURES, STREAMS, OPERATORS)
    assert all(TABLE.items() >= each.items() for each in others)
