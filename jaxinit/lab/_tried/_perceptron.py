"""The perceptron as a network: a loop to be trained, layers apart to be drawn."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxinit._jaxpr.equation import bind
from jaxinit._jaxpr.evaluation import evaluate
from jaxinit.initializers import zeros
from jaxinit.lab._tried._model import MLP, Block
from jaxinit.lab._tried._network import Init, Loop, Network
from jaxinit.model import jit_init

STACK = "hidden/"
_UNROLL = 20  # layers of a training step written out: a third faster on a CPU
# The default run takes 53 ms a step with 4 cells at a time, which stay in the cache,
# and 91 ms with all at once (two cores).
_TOGETHER = 4


def adapt_perceptron(module: MLP) -> Network:
    """Makes a network of the perceptron."""
    depth = module.depth

    def init(key: jax.Array, x: jax.Array) -> Any:
        return module.init(key, x, train=True)

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        output: Any = module.apply(variables, x)
        return output  # type: ignore[no-any-return]

    def train(variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        rngs = {"dropout": key} if module.dropout else {}
        return _train(module.clone(unroll=_UNROLL), variables, x, rngs)

    def watched(variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        # A step that is probed drops no units, and is a loop: it compiles sooner.
        return _train(module, variables, x, {})

    loop = Loop(
        stack=STACK,
        network=_write_out(module),
        split=lambda variables: {k: _split(part) for k, part in variables.items()},
        join=lambda variables: {k: _join(part, depth) for k, part in variables.items()},
        split_key=_build_split(depth),
    )
    return Network(
        init=init,
        apply=apply,
        train=train,
        loop=loop,
        watched=watched,
        together=_TOGETHER,
    )


def _train(
    module: MLP, variables: Any, x: jax.Array, rngs: dict[str, jax.Array]
) -> tuple[jax.Array, Any]:
    """Computes outputs in training, and the collections that changed."""
    changing = ["batch_stats"]
    output: Any = module.apply(variables, x, train=True, mutable=changing, rngs=rngs)
    return output[0], output[1]


def _write_out(module: MLP) -> Network:
    """Makes a network whose layers have variables of their own, by name.

    Its init functions take the keys of all kernels.
    """
    blocks = {_name(i): _build_block(module, i) for i in range(module.depth)}

    def init(keys: Any, x: jax.Array) -> Any:
        variables: dict[str, Any] = {}
        for (name, block), key in zip(blocks.items(), keys, strict=True):
            drawn = block.init(key, x, True)
            for collection, part in drawn.items():
                variables.setdefault(collection, {})[name] = part
            x = jnp.zeros((1, block.features), x.dtype)
        return variables

    stock = jax.jit(init)  # traced once for all initializers

    def redraw(kernel_init: Any) -> Init:
        def initialize(keys: Any, x: jax.Array) -> Any:
            variables = stock(keys, x)
            # By the order of the layers: JAX sorts "layer10" before "layer2".
            for key, name in zip(keys, blocks, strict=True):
                dense = variables["params"][name]["Dense_0"]
                dense["kernel"] = kernel_init(key, dense["kernel"].shape, jnp.float32)
            return variables

        return initialize

    def train(variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        z = x
        for i, (name, block) in enumerate(blocks.items()):
            own = {k: part[name] for k, part in variables.items() if name in part}
            h = module.activation(z) if i else z
            z, _ = block.apply(own, h, True, mutable=["batch_stats"])
        return z, {}

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return train(variables, x, jax.random.key(0))[0]

    return Network(init=init, apply=apply, train=train, redraw=redraw)


def _build_block(module: MLP, number: int) -> Block:
    """Builds a layer of the perceptron."""
    last = number == module.depth - 1
    if last:
        return Block(module.outputs, zeros, "none")
    return Block(module.width, zeros, module.norm)


def _name(number: int) -> str:
    return f"layer{number + 1}"


def _split(collection: Any) -> dict[str, Any]:
    """Splits a collection by layer; only the last layer may have none."""
    blocks = [collection["first"]] if "first" in collection else []
    if "hidden" in collection:
        hidden = collection["hidden"]["block"]
        depth = len(jax.tree.leaves(hidden)[0])
        blocks += [jax.tree.map(lambda a, i=i: a[i], hidden) for i in range(depth)]
    blocks += [collection["last"]] if "last" in collection else []
    return {_name(i): block for i, block in enumerate(blocks)}


def _join(collection: Any, depth: int) -> dict[str, Any]:
    """Joins what `_split` splits."""
    first, *hidden = (collection[_name(i)] for i in range(depth - 1))
    joined = {"first": first}
    if hidden:
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *hidden)
        joined["hidden"] = {"block": stacked}
    if _name(depth - 1) in collection:
        joined["last"] = collection[_name(depth - 1)]
    return joined


class _Key(nn.Module):
    """A dense layer that has keys in place of its parameters."""

    @nn.compact
    def __call__(self) -> None:
        """Makes the keys, in the order in which `nn.Dense` makes its parameters."""
        self.param("kernel", lambda key: key)
        self.param("bias", lambda key: key)  # Flax counts: it changes the next key


class _KeyBlock(nn.Module):
    """Has the keys of a `Block`."""

    @nn.compact
    def __call__(self) -> None:
        """Makes the keys."""
        _Key(name="Dense_0")()


class _KeyHidden(nn.Module):
    """Has the keys of a `Hidden`."""

    @nn.compact
    def __call__(self, carry: None) -> tuple[None, None]:
        """Makes the keys."""
        _KeyBlock(name="block")()
        return None, None


class _Keys(nn.Module):
    """Has the keys that Flax gives the kernels of an `MLP`: they follow from names."""

    depth: int

    @nn.compact
    def __call__(self) -> None:
        """Makes the keys."""
        _KeyBlock(name="first")()
        if self.depth > 2:
            stack = nn.scan(
                _KeyHidden,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.depth - 2,
            )
            stack(name="hidden")(None)
        _KeyBlock(name="last")()


def _build_split(depth: int) -> Callable[[jax.Array], list[jax.Array]]:
    """Returns a function from the key of `MLP.init` to the key of each kernel.

    It compiles nothing: `jit_init` derives keys on the host, all but those of a loop.
    """

    def split(key: jax.Array) -> list[jax.Array]:
        layers = _split(_Keys(depth).init(key)["params"]).values()
        return [layer["Dense_0"]["kernel"] for layer in layers]

    @jit_init
    def split_without_loop(key: jax.Array) -> list[jax.Array]:
        traced = jax.make_jaxpr(split)(key)
        return evaluate(traced.jaxpr, traced.consts, [key], _vectorize_loop)

    return split_without_loop


def _vectorize_loop(eqn: core.JaxprEqn, values: list[Any]) -> list[Any]:
    """Evaluates an equation; a loop whose steps are independent, all at once."""
    if eqn.primitive.name != "scan":
        return bind(eqn, values)
    results: list[Any] = jax.vmap(core.jaxpr_as_fun(eqn.params["jaxpr"]))(*values)
    return results
