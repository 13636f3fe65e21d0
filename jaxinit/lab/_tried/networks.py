"""The lab's networks, and users' own, in one form.

The initializer under test draws the kernels of every network anew, through
`jaxinit.reinit`; biases, norms and embeddings stay as the network initializes them.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinit import _check as check
from jaxinit._adapt.adapt import adapt_for_training
from jaxinit._import import load
from jaxinit.initializers import variance_scaling
from jaxinit.lab._tried._model import MLP, drop_units
from jaxinit.lab._tried._model import Norm as _Norm
from jaxinit.lab._tried._network import Network
from jaxinit.lab._tried._perceptron import STACK, adapt_perceptron
from jaxinit.lab._tried.data import Task

Activation = Callable[[Any], Any]
Norm = _Norm | Literal["post"]
# The law by which `nn.Embed` draws tables, which all networks here leave to it: a scale
# can change a law that is stated.
TABLES = variance_scaling(1.0, "fan_out", "normal")


class _ImageNetwork(nn.Module):
    """The fields of networks for images."""

    depth: int
    width: int
    outputs: int
    activation: Activation
    norm: Norm
    shape: tuple[int, ...]
    dropout: float = 0.0


class Convolutions(_ImageNetwork):
    """3×3 convolutions, every second one at stride 2, and a dense classifier.

    Dropout follows each activation.
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
            x = self.activation(_normalize(self.norm, x, train))
            x = drop_units(self, x, train)
        return nn.Dense(self.outputs)(x.reshape(len(x), -1))


class Residual(_ImageNetwork):
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
            h = self.activation(_normalize(self.norm, h, train))
            h = drop_units(self, h, train)
            h = nn.Conv(self.width, (3, 3), name=f"block{i}_conv2")(h)
            x = self.activation(x + _normalize(self.norm, h, train))
        return nn.Dense(self.outputs, name="head")(x.mean((1, 2)))


def _normalize(norm: Norm, x: jax.Array, train: bool) -> jax.Array:
    """Applies the norm that is named; "none" and "post" leave x as it is."""
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
        """Mixes each place with the places before it. # [rows, length, width]."""
        queries, keys, values = (
            nn.Dense(self.width, name=name)(x).reshape(*x.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        mask = nn.make_causal_mask(x[..., 0])
        mixed = nn.dot_product_attention(queries, keys, values, mask=mask)
        return nn.Dense(self.width, name="out")(mixed.reshape(x.shape))


class Transformer(nn.Module):
    """A causal transformer; norm "layer" stands before a branch, "post" behind it.

    Dropout acts on the embeddings and on the output of each branch.
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
        h = drop_units(self, nn.Embed(self.tokens, self.width)(x) + places, train)
        for _ in range(self.depth):
            h = self._branch(h, Attention(self.width, self.heads), train)
            up, down = nn.Dense(4 * self.width), nn.Dense(self.width)
            h = self._branch(h, nn.Sequential([up, self.activation, down]), train)
        return nn.Dense(self.outputs)(_normalize(self.norm, h, train))

    def _branch(
        self, h: jax.Array, branch: Callable[[Any], Any], train: bool
    ) -> jax.Array:
        before = nn.LayerNorm()(h) if self.norm == "layer" else h
        added: jax.Array = h + drop_units(self, branch(before), train)
        if self.norm == "post":
            added = nn.LayerNorm()(added)
        return added


class Recurrent(nn.Module):
    """``depth`` recurrent layers over tokens, and a dense layer at each place.

    Dropout acts on the inputs of each layer, the dense one included.
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
            layer = cell(self.width, carry_init=functools.partial(_make_blank, h))
            h = nn.RNN(layer)(drop_units(self, h, train))
        return nn.Dense(self.outputs)(drop_units(self, h, train))


def _make_blank(like: jax.Array, key: Any, shape: Any, dtype: Any) -> jax.Array:
    """Makes the first state of a recurrent cell, in the dtype of its inputs."""
    return jnp.zeros(shape, like.dtype)


class Coordinates(nn.Module):
    """A coordinate network: a sine of each dense layer, the first 30 times as fast.

    Dropout follows each sine.
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
            x = drop_units(self, x, train)
        return nn.Dense(self.outputs)(x)


class Kind(NamedTuple):
    """A network of the lab, by its name.

    Attributes:
      takes: the tasks that it is for.
      build: makes it from a task and from sizes: depth, width, outputs, dropout; and,
        if these are free, from the activation between layers and the norm.
      depth: its depth by default.
      noun: what the depth counts, for the help.
      free: whether activation and norm can be chosen.
      stack: the name of its loop over layers, as `list_stacks` takes it.
    """

    takes: Literal["numbers", "images", "tokens"]
    build: Callable[..., nn.Module]
    depth: int = 1
    noun: str = "recurrent layer"
    free: bool = False
    stack: str = ""


_SUITS: dict[str, Callable[[Task], bool]] = {
    "numbers": lambda task: not task.tokens,
    "images": lambda task: len(task.shape) == 3,
    "tokens": lambda task: task.tokens > 0,
}


def _of_images(network: Any) -> Callable[..., nn.Module]:
    return lambda task, **given: network(**given, shape=task.shape)


def _of_tokens(network: Any, **more: Any) -> Callable[..., nn.Module]:
    return lambda task, **given: network(**given, **more, tokens=task.tokens)


def _of_numbers(network: Any) -> Callable[..., nn.Module]:
    return lambda task, **given: network(**given)


NETWORKS = {
    "mlp": Kind("numbers", _of_numbers(MLP), 20, "dense layers", True, STACK),
    "cnn": Kind("images", _of_images(Convolutions), 4, "convolutions", True),
    "resnet": Kind("images", _of_images(Residual), 6, "residual blocks", True),
    "transformer": Kind("tokens", _of_tokens(Transformer), 4, "of a transformer", True),
    "lstm": Kind("tokens", _of_tokens(Recurrent, cell="lstm")),
    "gru": Kind("tokens", _of_tokens(Recurrent, cell="gru")),
    "rnn": Kind("tokens", _of_tokens(Recurrent, cell="rnn")),
    "coordinate": Kind(
        "numbers", _of_numbers(Coordinates), 5, "of a coordinate network"
    ),
}


def build_network(
    model: str,
    task: Task,
    depth: int,
    width: int,
    activation: Activation,
    norm: Any,
    dropout: float = 0.0,
) -> Network:
    """Builds a network for a task.

    Args:
      model: one of the lab's names, or a user's "package.module:Model".
      task: the data.
      depth: number of layers or blocks.
      width: width of the layers.
      activation: the function between layers.
      norm: "none", "layer", "batch", or "post" for a transformer.
      dropout: share of units that training drops.

    Raises:
      Unfit: if the network and the task do not fit, or there is no such model.
    """
    if ":" in model:
        if dropout:
            rule = "is for the lab's own networks; a model of yours has its own."
            raise check.Unfit(f"dropout {rule}", dropout=dropout)
        return adapt_own(load(model), task, model)
    if model == "mlp" and task.tokens:
        rule = f"takes numbers, and {task.name} has tokens. Choose transformer or lstm."
        raise check.Unfit(rule, model=model)
    kind = NETWORKS[model]
    if not _SUITS[kind.takes](task):
        rule = f"is for a task of {kind.takes}, unlike {task.name}."
        raise check.Unfit(rule, model=model)
    if model == "transformer" and width % Transformer.heads:
        rule = f"must be a multiple of {Transformer.heads} heads for a transformer."
        raise check.Unfit(f"width {rule}", width=width)
    sizes: dict[str, Any] = {"depth": depth, "width": width, "outputs": task.outputs}
    sizes["dropout"] = dropout
    between = {"activation": activation, "norm": norm}
    made = kind.build(task, **sizes, **(between if kind.free else {}))
    if isinstance(made, MLP):
        return adapt_perceptron(made)
    return Network(*adapt_for_training(made, model))


def adapt_own(model: Any, task: Task, name: str) -> Network:
    """Adapts a user's model of Flax to the examples of a task.

    Raises:
      Unfit: if it is of no kind that can be trained.
    """
    return _reshape_inputs(Network(*adapt_for_training(model, name)), task.example)


def _reshape_inputs(network: Network, shape: tuple[int, ...]) -> Network:
    """Gives a network its examples in a shape; the empty shape leaves them flat."""
    if not shape:
        return network

    def reshape(x: jax.Array) -> jax.Array:
        return x.reshape(len(x), *shape)

    return Network(
        lambda key, x: network.init(key, reshape(x)),
        lambda variables, x: network.apply(variables, reshape(x)),
        lambda variables, x, key: network.train(variables, reshape(x), key),
    )
