"""The plan of a fill: its slices, their programs, and how they run."""

import functools
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from jaxinit import _text
from jaxinit._jaxpr.equation import Fixed, bind, is_key, name_generator
from jaxinit._jaxpr.evaluation import read, walk
from jaxinit._jaxpr.spelling import Speller
from jaxinit._law import chunks, laws
from jaxinit._law.slices import Slice, cut, find_key_nodes, flatten, spell
from jaxinit._placement import platform_of, replicated, untyped
from jaxinit._result import Result
from jaxinit._table import Table
from jaxinit._threads import open_pool
from jaxinit.model._fill import fused_bits
from jaxinit.model._fill.host_keys import derived, whole
from jaxinit.model._fill.programs import COLUMNS, Kind, Output, Program
from jaxinit.random.backends import find_unasked


class Plan(Result):
    """How an init function is filled; prints as a table, as notebooks show it.

    Attributes:
      slices: one for each kind of parameter, the largest first.
      outputs: all arrays of the result.
    """

    def __init__(
        self,
        closed: core.ClosedJaxpr,
        outputs: Sequence[Output],
        tree: Any,
        placed: Sequence[Sharding | None],
        mesh: Mesh,
    ):
        """Cuts a program, traced within a mesh or an empty one, into slices."""
        self._closed = closed
        self._graph = flatten(closed)
        self._tree = tree
        self.outputs = tuple(outputs)
        self._keys = find_key_nodes(self._graph)
        self._placed = tuple(placed)
        everywhere = None if mesh.empty else NamedSharding(mesh, PartitionSpec())
        self._is_placed = any(placed)
        places_of = zip(self._graph.arguments, placed, strict=True)
        self._at_home = {value for value, place in places_of if place is None}
        self._at_home.update(self._graph.constants)
        self._home = next((replicated(place) for place in placed if place), everywhere)
        places = (self._home, *(output.sharding for output in outputs))
        platform = platform_of(*places)
        self._written_out = find_unasked(platform).written_out
        sharded = any(output.sharding is not None for output in outputs)
        one = self._home is None or len(self._home.device_set) == 1
        self._by_law = platform == "cpu" and one and not sharded
        known = {*self._graph.arguments, *self._graph.constants}
        known.update(value for node in self._keys for value in node.outvars)
        self.slices = self._programs(cut(self._graph, known, every=sharded))
        self._spread = any(
            isinstance(o.sharding, Sharding) and not o.sharding.is_fully_addressable
            for o in outputs
        )

    def _programs(self, parts: list[Slice]) -> tuple[Program, ...]:
        """Groups equal slices."""
        speller = Speller()
        by_target: dict[Any, Output] = {}
        for value, output in zip(self._graph.outputs, self.outputs, strict=True):
            by_target.setdefault(value, output)
        groups: dict[Any, Program] = {}
        for part in parts:
            member = tuple(by_target[target] for target in part.targets)
            kind, made, text = self._kind(part, speller)
            token = kind, text, tuple(output.sharding for output in member)
            program = groups.setdefault(token, Program(kind))
            program.parts.append(part)
            program.made.append(made)
            program.members.append(member)
        return tuple(sorted(groups.values(), key=lambda p: p.bytes, reverse=True))

    def _kind(self, part: Slice, speller: Speller) -> tuple[Kind, Any, Any]:
        """Returns the kind of a slice, its law or constant, and its spelling."""
        law = laws.find_law(self._graph, part) if self._written_out else None
        if self._by_law:
            if (value := laws.find_constant(self._graph, part)) is not None:
                return "constant", value, (str(value), value.dtype.name)
            if law is not None:
                return "law", law, law.spell(speller)
        return "slice", law, spell(self._graph, part, speller)

    def fill(self, leaves: Sequence[Any]) -> Any:
        """Fills the result for some arguments."""
        with open_pool() as pool:
            jobs: dict[int, Future[None]] = {}
            for program in self.slices:
                if program.needed and not self._take(program):
                    lowered = self._lower(program)  # here: JAX has settings by thread
                    jobs[id(program)] = pool.submit(_compile, program, lowered)
            env = self._known(leaves)
            for program in self.slices:
                if id(program) in jobs:
                    jobs[id(program)].result()
                    if program.kind == "law":
                        chunks.KEPT.add(self._name(program), program.executable)
                self._run(program, env)
        return self._result(env)

    def measure(self, leaves: Sequence[Any]) -> None:
        """Fills slice by slice, and keeps the seconds of each."""
        env = self._known(leaves)
        for program in self.slices:
            if program.needed:
                _compile(program, self._lower(program))
            jax.block_until_ready(list(env.values()))
            begun = time.perf_counter()
            made = self._run(program, {**env})
            jax.block_until_ready(made)
            program.filled = time.perf_counter() - begun

    def _table(self) -> Table:
        return Table.of(COLUMNS, self.slices, [(self._total(), "")])

    def _total(self) -> str:
        size = _text.size(sum(output.bytes for output in self.outputs))
        arrays = _text.plural(len(self.outputs), "array")
        return f"{arrays}, {size}, {_text.plural(len(self.slices), 'program')}"

    def to_dict(self) -> list[dict[str, Any]]:
        """Returns a row for each program, of plain Python values."""
        return [program.to_dict() for program in self.slices]

    def __repr__(self) -> str:
        arrays = _text.plural(len(self.outputs), "array")
        return f"Plan({arrays}, {_text.plural(len(self.slices), 'program')})"

    def _known(self, leaves: Sequence[Any]) -> dict[Any, Any]:
        """Returns arguments, constants and keys by number."""
        env: dict[Any, Any] = dict(self._graph.constants)
        env.update(zip(self._graph.arguments, leaves, strict=True))
        evaluate = bind if self._is_placed else derived
        walk(self._keys, env, lambda node, values: evaluate(node.eqn, values))
        return env

    def _operands(self, part: Slice, env: dict[Any, Any]) -> list[Any]:
        arguments = part.arguments(self._graph)
        values = [whole(env[v], self._graph.avals[v]) for v in arguments]
        return list(map(_everywhere, values)) if self._spread else values

    def _take(self, program: Program) -> bool:
        """Takes the program of an equal law; returns whether there is one."""
        if program.kind == "law":
            program.executable = chunks.KEPT.find(self._name(program))
        return program.executable is not None

    def _name(self, program: Program) -> Any:
        place = self._type(program.parts[0].inputs[0]).sharding
        return chunks.name_program(program.made[0], program.chunk, place)

    def _lower(self, program: Program) -> Any:
        """Lowers a program."""
        part = program.parts[0]
        arguments = part.arguments(self._graph)
        types = [self._type(value) for value in arguments]
        if program.kind == "law":
            return chunks.lower(program.made[0], program.chunk, types[0].sharding)
        kinds = [
            name_generator(t.dtype) if self._spread and is_key(t) else None
            for t in types
        ]
        evaluate = bind
        if self._written_out:
            is_law = program.made[0] is not None
            evaluate = functools.partial(fused_bits.fuse, every=is_law)

        def run(*values: Any) -> list[Any]:
            local: dict[Any, Any] = {**self._graph.constants}
            local |= zip(arguments, map(_wrapped, values, kinds), strict=True)
            walk(part.nodes, local, lambda node, given: evaluate(node.eqn, given))
            return read(local, part.targets)

        home = None if types else self._home
        shardings = [untyped(o.sharding) or home for o in program.members[0]]
        if program.is_summed:
            # On one device if one is enough, else on each.
            one = self._home is None and not self._spread
            shardings = [None if one else replicated(s) for s in shardings]
        jitted = jax.jit(run, out_shardings=shardings, keep_unused=True)
        if self._spread:
            types = [jax.eval_shape(_raw, t) for t in types]
        return jitted.lower(*types)

    def _type(self, value: int) -> jax.ShapeDtypeStruct:
        """Returns the type of a value, and where it was put on purpose."""
        aval = self._graph.avals[value]
        place = self._home
        if value in self._graph.arguments:
            place = self._placed[self._graph.arguments.index(value)]
        return jax.ShapeDtypeStruct(
            aval.shape, aval.dtype, sharding=place, weak_type=aval.weak_type
        )

    def _run(self, program: Program, env: dict[Any, Any]) -> list[Any]:
        """Fills the members of a program."""
        if program.kind != "slice":
            return self._put(program, env)
        filled = []
        for part, member in zip(program.parts, program.members, strict=True):
            made = program.executable(*self._operands(part, env))
            made = list(map(_placed, made, (output.sharding for output in member)))
            env.update(zip(part.targets, made, strict=True))
            filled.append(made)
        return filled

    def _put(self, program: Program, env: dict[Any, Any]) -> list[Any]:
        """Fills the members of a law or constant."""
        types = [
            (output.shape, np.dtype(output.dtype)) for (output,) in program.members
        ]
        if program.kind == "constant":
            pairs = zip(program.made, types, strict=True)
            arrays = [np.full(shape, value, dtype) for value, (shape, dtype) in pairs]
        else:
            jobs = [
                (_raw(env[part.inputs[0]]), law.scale, shape)
                for part, law, (shape, _) in zip(
                    program.parts, program.made, types, strict=True
                )
            ]
            arrays = chunks.filled(program.executable, program.chunk, types[0][1], jobs)
        # At once: each call takes long.
        made: list[Any] = jax.device_put(arrays, self._home)
        for part, array in zip(program.parts, made, strict=True):
            env[part.targets[0]] = array
        return made

    def _result(self, env: dict[Any, Any]) -> Any:
        """Puts the result together; its arrays are distinct, and none is ours."""
        leaves: list[Any] = []
        seen: set[Any] = {*self._graph.constants, *self._graph.arguments}
        for value in self._graph.outputs:
            if isinstance(value, Fixed) and value not in env:
                env[value] = jax.device_put(_literal(value), self._home)
            made = env[value]
            if isinstance(value, int):
                made = whole(made, self._graph.avals[value])
                if value in self._at_home:
                    made = jax.device_put(made, self._home)
            leaves.append(jnp.array(made, copy=True) if value in seen else made)
            seen.add(value)
        return jax.tree.unflatten(self._tree, leaves)


def _literal(value: Fixed) -> jax.Array:
    """Returns a constant as `jax.jit` would."""
    if value.aval.weak_type:
        return jnp.asarray(np.asarray(value.val).item())
    return jnp.asarray(value.val, value.aval.dtype)


def _placed(made: jax.Array, sharding: Any) -> jax.Array:
    """Moves an array to its sharding, unless it lies there already."""
    if sharding is None or made.sharding == sharding:
        return made
    moved: jax.Array = jax.device_put(made, sharding)
    return moved


def _compile(program: Program, lowered: Any) -> None:
    begun = time.perf_counter()
    if program.kind == "law":
        program.executable = chunks.compiled(program.made[0], lowered)
    else:
        program.executable = lowered.compile()
    program.compiled = time.perf_counter() - begun


def _everywhere(value: Any) -> np.ndarray:
    """Returns a value as a NumPy array, which JAX takes as equal in all processes."""
    return np.asarray(_raw(value))


def _raw(value: Any) -> Any:
    return jax.random.key_data(value) if is_key(value) else value


def _wrapped(value: Any, kind: str | None) -> Any:
    return value if kind is None else jax.random.wrap_key_data(value, impl=kind)
