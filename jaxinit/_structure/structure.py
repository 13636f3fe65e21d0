"""`structure`: what each parameter of a model does, read from its traced program."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxinit import _check as check
from jaxinit import _paths, _placement
from jaxinit._adapt.adapt import adapt
from jaxinit._adapt.functions import Model, bind_axes, of_arrays
from jaxinit._adapt.inputs import (
    read_keywords,
    read_names,
    read_shapes,
    set_mode,
)
from jaxinit._structure._read.axes import name_axes
from jaxinit._structure._read.facts import CONSTANT, Fact, Unit, Use
from jaxinit._structure._read.notebook import Notebook
from jaxinit._structure._read.walk import walk
from jaxinit._structure.result import Structure
from jaxinit._structure.rows import list_rows


def structure(
    model: Any,
    *inputs: Any,
    arguments: Mapping[str, Any] | None = None,
    train: bool | None = None,
    streams: str | Sequence[str] = ("dropout",),
    axis_name: str | Sequence[str] = (),
) -> Structure:
    """Tells what each parameter of a model does, whatever its name and layout.

    The program that computes the outputs from parameters and inputs is traced and read:
    no weight is drawn, and nothing is compiled. A weight that is multiplied with the
    inputs has the role input; a table of which data choose the rows is an embedding; a
    product that is added to what bypasses it is residual; two products that meet in a
    third are query and key; the last product before the output is the readout. Loops,
    branches, rematerialized functions and functions with derivatives of their own are
    read through.

    Roles, in full:

    =========  ========================================================================
    role       in the program
    =========  ========================================================================
    embedding  its rows are chosen by data, or it is multiplied by one-hot rows
    query      its product meets the keys' in a product of data
    key        its product meets the queries'; the values are summed over the same axis
    value      its product is summed with the weights that queries and keys make
    residual   the last product of a branch that is added to what bypasses it
    recurrent  multiplied with the carry of a loop, and the same at every step
    readout    no other product between it and the output
    input      multiplied with the model's inputs: they give its fan_in
    hidden     multiplied with what other parameters made
    bias       added right behind a product
    gain       multiplied entry by entry
    offset     added elsewhere, the same at every position, as behind a norm's gain
    table      added to data, different at each position; joined to them; or like data
    state      a rate in logarithms, multiplied entry by entry; or a loop's first carry
    other      none of these, for the reason that is given
    =========  ========================================================================

    Args:
      model: as `check` takes it: a Flax Linen module; a class of Flax NNX or Equinox, a
        model of theirs, or a function that makes one; a pair of functions (init,
        apply); the result of ``hk.transform``. An Equinox model is mapped over the
        examples.
      *inputs: example inputs, each any pytree of arrays or of `jax.ShapeDtypeStruct`.
        Their values are not read.
      arguments: keywords of the call, such as ``{"train": False}``.
      train: sets the keyword by which the model's call tells training from evaluation,
        whatever it is called: ``train``, ``training``, ``is_training``, or its opposite
        ``deterministic``, ``inference``, ``eval``, ``use_running_average``.
      streams: names of the random streams that the call needs beside ``params``.
      axis_name: the name of an axis that the model reads, or several names.

    Returns:
      A `Structure`: it prints as a table, maps paths to rows, and has ``find(role)``,
      ``outline()`` and ``branches``. Of a row: behind it is the activation, or
      "function" if that has no name here; norm, whether data are normalized before or
      after its product; branch, the number of its residual branch; depth, the products
      on the longest way from the inputs.

    Raises:
      ValueError: if an argument does not fit, or the model has no parameter.
      TypeError: if an argument has the wrong type. A model that fails raises its own
        error.

    Example:
      >>> import flax.linen as nn
      >>> model = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])
      >>> print(structure(model, jnp.ones((8, 64))))
      path             shape  role        fans  axes               behind it  norm  branch  depth
      ───────────────  ─────  ───────  ───────  ─────────────────  ─────────  ────  ──────  ─────
      layers_0/bias       32  bias
      layers_0/kernel  64×32  input    64 → 32  (inputs, outputs)  relu                         1
      layers_2/bias       10  bias
      layers_2/kernel  32×10  readout  32 → 10  (inputs, outputs)                               2
    """  # noqa: E501
    try:
        keywords = set_mode(model, read_keywords(arguments), train)
        read = read_shapes(inputs)
        names = read_names(streams=streams), read_names(axis_name=axis_name)

        def make(inputs: tuple[Any, ...]) -> Model:
            adapted = adapt(model, inputs, keywords, names[0], built=True)
            return bind_axes(adapted, names[1])

        key = jax.eval_shape(lambda: jax.random.key(0))
        of = of_arrays(make, read)
        with _placement.automatic():
            params, rest = jax.eval_shape(of.init, key, *of.arrays)
            traced = jax.make_jaxpr(of.apply)(params, rest, key, *of.arrays)
    except check.Unfit as error:
        if error.name == "x":  # what `check` calls them
            text = str(error).replace("x must", "inputs must", 1)
            error.name, error.args = "inputs", (text,)
        raise error.at("structure", "model", "inputs") from None
    if not jax.tree.leaves(params):
        raise ValueError("structure(model=...): the model has no parameter.")
    return read_structure(params, rest, traced)


def read_structure(params: Any, rest: Any, traced: core.ClosedJaxpr) -> Structure:
    """Reads a model's traced program.

    Args:
      params: the parameters, or their shapes.
      rest: what else the model stores.
      traced: the program; its arguments are the leaves of both, a key for noise, and
        the arrays of the inputs.
    """
    leaves = _paths.named(params)
    facts = _list_facts(params, rest, traced.in_avals)
    book, results = _read(leaves, traced.jaxpr, facts)
    last = frozenset[int]().union(*(fact.last for fact in results))
    return Structure(list_rows(leaves, book.notes, last), book.count_branches())


def _read(
    leaves: Sequence[tuple[str, Any]], jaxpr: core.Jaxpr, facts: Sequence[Fact]
) -> tuple[Notebook, list[Fact]]:
    """Walks over the program; once more if parameters prove to be data."""
    shapes = [tuple(leaf.shape) for _, leaf in leaves]
    tokens: set[int] = set()
    while True:
        book = Notebook(shapes)
        entering = list(facts)
        for token in tokens:
            rows = [("token", token, axis) for axis in range(len(shapes[token]) - 1)]
            axes = name_axes(shapes[token], [*rows, Unit()])
            entering[token] = Fact(data=True, axes=axes, raw=False)
            book.note(Use(kind="table", leaf=token, order=book.order))
        entering = [
            fact._replace(behind=book.mark(result=number)) if fact.data else fact
            for number, fact in enumerate(entering)
        ]
        results = walk(book, jaxpr, entering)
        if not book.notes.tokens:
            _note_returned(book, results)
            return book, results
        tokens |= book.notes.tokens


def _note_returned(book: Notebook, results: Sequence[Fact]) -> None:
    """Notes parameters that are results themselves, as log deviations of actors are."""
    used = {use.leaf for use in book.notes.uses}
    for leaf in {leaf for fact in results for leaf in fact.leaves} - used:
        reason = "is a result by itself: it meets no data"
        book.notes.uses.append(
            Use(kind="other", leaf=leaf, order=book.order, reason=reason)
        )


def _list_facts(params: Any, rest: Any, avals: Sequence[Any]) -> list[Fact]:
    """Lists what is known of a program's arguments, of which these are the types."""
    facts = [
        Fact(leaves={number: name_axes(leaf.shape, range(len(leaf.shape)))})
        for number, leaf in enumerate(jax.tree.leaves(params))
    ]
    # What a model stores beside its parameters are averages, as of a BatchNorm.
    facts += [Fact(averaged=1)] * len(jax.tree.leaves(rest)) + [CONSTANT]
    for number, array in enumerate(avals[len(facts) :]):
        sources = [("input", number, axis) for axis in range(len(array.shape))]
        counted = not jnp.issubdtype(array.dtype, jnp.inexact)
        axes = name_axes(array.shape, sources)
        facts.append(Fact(data=True, axes=axes, counted=counted))
    return facts
