"""Networks of the lab beside the perceptron, and those of users, in one form.

The kernels of every network are drawn anew by the initializer under test, through
`jaxinit.reinit`; biases, norms and embeddings stay what the network makes them.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit._import import load
from jaxinit._initializer import Initializer
from jaxinit.lab._tried._model import Norm as _Norm
from jaxinit.lab._tried._model import dropped
from jaxinit.lab._tried.data import Task
from jaxinit.lab._tried.rules import Rules, draw

Name = Literal["cnn", "resnet", "transformer", "lstm", "gru", "rnn", "coordinate"]
NAMES = ("mlp", *get_args(Name))
DEPTHS = {"mlp": 20, "cnn": 4, "resnet": 6, "transformer": 4, "coordinate": 5}

Activation = Callable[[Any], Any]
Norm = _Norm | Literal["post"]


@dataclass(frozen=True)
class Network:
    """A network as functions.

    Attributes:
      init: makes variables, "params" among them, from a key and inputs.
      apply: computes outputs from variables and inputs, as at evaluation.
      train: the same as in training, with a key for dropout; returns outputs and what
        changed beside the parameters.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]
    train: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]

    def drawn(self, init: Initializer | Rules) -> Callable[[jax.Array, jax.Array], Any]:
        """Returns the init function with kernels drawn anew, or what rules name."""

        def made(key: jax.Array, x: jax.Array) -> Any:
            variables = self.init(key, x)
            return {**variables, "params": draw(key, variables["params"], init)}

        return made


class _OfImages(nn.Module):
    """What networks of images are built from."""

    depth: int
    width: int
    outputs: int
    activation: Activation
    norm: Norm
    shape: tuple[int, ...]
    dropout: float = 0.0


class Convolutions(_OfImages):
    """Convolutions of 3×3 with halving between them, and a dense classifier.

    Dropout stands behind each activation.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images, flat or not, to logits.

        # [rows, ...] -> [rows, outputs]
        """
        x = x.reshape(len(x), *self.shape)
        for i in range(self.depth - 1):
            stride = 2 if i % 2 and min(x.shape[1:3]) > 2 else 1
            x = nn.Conv(self.width, (3, 3), stride)(x)
            x = dropped(self, self.activation(_normed(self.norm, x, train)), train)
        return nn.Dense(self.outputs)(x.reshape(len(x), -1))


class Residual(_OfImages):
    """A residual network for small images: ``depth`` blocks of two convolutions.

    Dropout stands between the two.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images, flat or not, to logits.

        # [rows, ...] -> [rows, outputs]
        """
        x = nn.Conv(self.width, (3, 3), name="stem")(x.reshape(len(x), *self.shape))
        for i in range(self.depth):
            h = nn.Conv(self.width, (3, 3), name=f"block{i}_conv1")(x)
            h = dropped(self, self.activation(_normed(self.norm, h, train)), train)
            h = nn.Conv(self.width, (3, 3), name=f"block{i}_conv2")(h)
            x = self.activation(x + _normed(self.norm, h, train))
        return nn.Dense(self.outputs, name="head")(x.mean((1, 2)))


def _normed(norm: Norm, x: jax.Array, train: bool) -> jax.Array:
    """Applies the norm that is named; of a transformer, "post" has none here."""
    if norm == "layer":
        x = nn.LayerNorm()(x)
    elif norm == "batch":
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
    return x


class Attention(nn.Module):
    """Causal attention whose kernels are matrices."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Mixes places with those before. # [rows, length, width]."""
        queries, keys, values = (
            nn.Dense(self.width, name=name)(x).reshape(*x.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        mask = nn.make_causal_mask(x[..., 0])
        mixed = nn.dot_product_attention(queries, keys, values, mask=mask)
        return nn.Dense(self.width, name="out")(mixed.reshape(x.shape))


class Transformer(nn.Module):
    """A causal transformer; norm "layer" stands before a branch, "post" behind it.

    Dropout is of the embeddings and of what each branch adds.
    """

    depth: int
    width: int
    outputs: int
    activation: Activation
    norm: Norm
    tokens: int
    heads: int = 4
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps tokens to logits of each place.

        # [rows, length] -> [rows, length, outputs]
        """
        length = x.shape[1]
        places = nn.Embed(length, self.width, name="places_embed")(jnp.arange(length))
        h = dropped(self, nn.Embed(self.tokens, self.width)(x) + places, train)
        for _ in range(self.depth):
            h = self._branch(h, Attention(self.width, self.heads), train)
            up, down = nn.Dense(4 * self.width), nn.Dense(self.width)
            h = self._branch(h, nn.Sequential([up, self.activation, down]), train)
        return nn.Dense(self.outputs)(_normed(self.norm, h, train))

    def _branch(
        self, h: jax.Array, branch: Callable[[Any], Any], train: bool
    ) -> jax.Array:
        before = nn.LayerNorm()(h) if self.norm == "layer" else h
        added: jax.Array = h + dropped(self, branch(before), train)
        if self.norm == "post":
            added = nn.LayerNorm()(added)
        return added


class Recurrent(nn.Module):
    """``depth`` recurrent layers over tokens, and a dense layer at each place.

    Dropout is of the inputs of each layer, the dense one among them.
    """

    cell: str
    depth: int
    width: int
    outputs: int
    tokens: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps tokens to logits of each place.

        # [rows, length] -> [rows, length, outputs]
        """
        h = nn.Embed(self.tokens, self.width)(x)
        for _ in range(self.depth):
            cells = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
            cell = cells.get(self.cell, nn.SimpleCell)
            made = cell(self.width, carry_init=functools.partial(_blank, h))
            h = nn.RNN(made)(dropped(self, h, train))
        return nn.Dense(self.outputs)(dropped(self, h, train))


def _blank(like: jax.Array, key: Any, shape: Any, dtype: Any) -> jax.Array:
    """Makes the first state of a recurrent cell, in the dtype of its inputs."""
    return jnp.zeros(shape, like.dtype)


class Coordinates(nn.Module):
    """A coordinate network: sines of the dense layers, the first 30 times as fast.

    Dropout stands behind each sine.
    """

    depth: int
    width: int
    outputs: int
    speed: float = 30.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps coordinates to values.

        # [rows, coordinates] -> [rows, outputs]
        """
        for i in range(self.depth - 1):
            x = jnp.sin((self.speed if i == 0 else 1.0) * nn.Dense(self.width)(x))
            x = dropped(self, x, train)
        return nn.Dense(self.outputs)(x)


def network(
    name: str,
    task: Task,
    depth: int,
    width: int,
    activation: Activation,
    norm: Any,
    dropout: float = 0.0,
) -> Network:
    """Builds a network for a task.

    Args:
      name: one of ours but "mlp", or "package.module:Model" of a user.
      task: the data.
      depth: of layers or blocks.
      width: of layers.
      activation: between layers.
      norm: "none", "layer", "batch", or "post" for a transformer.
      dropout: share of units that training drops.

    Raises:
      Unfit: if the network and the task do not fit, or there is no such model.
    """
    if ":" in name:
        if dropout:
            rule = "is for the lab's own networks; a model of yours has its own."
            raise check.Unfit(f"dropout {rule}", dropout=dropout)
        return _shaped(imported(name), task.example)
    outputs, common = task.outputs, (depth, width, task.outputs, activation, norm)
    images = len(task.shape) == 3
    fits = {
        **dict.fromkeys(("cnn", "resnet"), images),
        **dict.fromkeys(("transformer", "lstm", "gru", "rnn"), task.tokens > 0),
        "coordinate": task.tokens == 0,
    }
    if not fits[name]:
        kinds = {"cnn": "images", "resnet": "images", "coordinate": "numbers"}
        kind = kinds.get(name, "tokens")
        rule = f"is for a task of {kind}, unlike {task.name}."
        raise check.Unfit(rule, model=name)
    if name == "transformer" and width % Transformer.heads:
        rule = f"must be a multiple of {Transformer.heads} heads for a transformer."
        raise check.Unfit(f"width {rule}", width=width)
    made: dict[str, Callable[[], nn.Module]] = {
        "cnn": lambda: Convolutions(*common, task.shape),
        "resnet": lambda: Residual(*common, task.shape),
        "transformer": lambda: Transformer(*common, task.tokens),
        "coordinate": lambda: Coordinates(depth, width, outputs),
    }
    recurrent = functools.partial(Recurrent, name, depth, width, outputs, task.tokens)
    return linen(made.get(name, recurrent)().clone(dropout=dropout))


def linen(module: nn.Module) -> Network:
    """Gives a Linen module the form; its call may take ``train``."""
    takes_train = "train" in inspect.signature(type(module).__call__).parameters

    def call(train: bool) -> dict[str, Any]:
        return {"train": train} if takes_train else {}

    def init(key: jax.Array, x: jax.Array) -> Any:
        return module.init({"params": key, "dropout": key}, x, **call(True))

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        output: Any = module.apply(variables, x, **call(False))
        return output  # type: ignore[no-any-return]

    def train(variables: Any, x: jax.Array, key: jax.Array) -> tuple[jax.Array, Any]:
        others = [name for name in variables if name != "params"]
        made: Any = module.apply(
            variables, x, mutable=others, rngs={"dropout": key}, **call(True)
        )
        return made[0], made[1]

    return Network(init, apply, train)


def nnx_model(make: Callable[..., Any]) -> Network:
    """Gives an NNX class or factory, called with ``rngs``, the form."""
    from flax import nnx

    graph: list[Any] = []

    def init(key: jax.Array, x: jax.Array) -> Any:
        parts: Any = nnx.split(make(rngs=nnx.Rngs(key)), nnx.Param, ...)
        graph[:] = parts[:1]
        return {"params": parts[1], "rest": parts[2]}

    def run(variables: Any, x: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        # Copied: variables of NNX belong to the trace that makes them.
        variables = jax.tree.map(lambda leaf: leaf, variables)
        model = nnx.merge(graph[0], variables["params"], variables["rest"])
        model.train() if train else model.eval()
        output = model(x)
        parts: Any = nnx.split(model, nnx.Param, ...)
        return output, {"rest": parts[2]}

    def apply(variables: Any, x: jax.Array) -> jax.Array:
        return run(variables, x, False)[0]

    return Network(init, apply, lambda variables, x, key: run(variables, x, True))


def _shaped(made: Network, shape: tuple[int, ...]) -> Network:
    """Returns a network that is given examples in this shape, if there is one."""
    if not shape:
        return made

    def given(x: jax.Array) -> jax.Array:
        return x.reshape(len(x), *shape)

    return Network(
        lambda key, x: made.init(key, given(x)),
        lambda variables, x: made.apply(variables, given(x)),
        lambda variables, x, key: made.train(variables, given(x), key),
    )


def imported(name: str) -> Network:
    """Imports a user's model: a Linen module or class, or an NNX class or factory."""
    from flax import nnx

    found = load(name)
    if isinstance(found, type) and issubclass(found, nn.Module):
        found = found()
    if isinstance(found, nn.Module):
        return linen(found)
    if callable(found) and not isinstance(found, nnx.Module):
        return nnx_model(found)
    rule = "is neither a Linen module nor an NNX class, or a function of rngs."
    raise check.Unfit(rule, model=name)
