"""Parameterizations written out by hand, and faults planted in them: one wrong factor.

They know nothing of `jaxinit.scaling`: the models draw what a table says, and Adam's
rates, ε and decay are multiplied by leaf.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

BASE = 64  # width, and what the factors are relative to
BASE_DEPTH = 2
FEATURES, CLASSES, TOKENS, LENGTH = 32, 10, 32, 8
_DATA = np.random.default_rng(0)
X = _DATA.normal(size=(8, FEATURES)).astype(np.float32)
TEXT = _DATA.integers(0, TOKENS, (4, LENGTH))


class Factors(NamedTuple):
    """Beside the base: of the initial weights, the rate, ε, and the decay."""

    std: float = 1.0
    lr: float = 1.0
    eps: float = 1.0
    decay: float = 1.0


def kind_of(path):
    """What a parameter is, by the names of the models below."""
    if "readout/kernel" in path:
        return "readout"
    if path.endswith("kernel") and "enter" not in path:
        return "hidden"
    return "vector"


def sp(path, m, depth):
    return Factors(std=1.0 if kind_of(path) == "vector" else m**-0.5)


def mup(path, m, depth):
    return {
        "vector": Factors(eps=1 / m),
        "hidden": Factors(std=m**-0.5, lr=1 / m, eps=1 / m, decay=m),
        "readout": Factors(std=1 / m, lr=1 / m, decay=m),
    }[kind_of(path)]


def everett(path, m, depth):
    """Standard, with a rate for each kind of layer: full alignment."""
    return mup(path, m, depth)._replace(std=sp(path, m, depth).std)


def completep(path, m, depth):
    """With α = 1 rates do not depend on the depth, and branches are divided by it."""
    own = mup(path, m, depth)
    return own._replace(eps=own.eps / depth) if "block" in path else own


@dataclasses.dataclass(frozen=True)
class Form:
    """A parameterization: what a model and an optimizer are built of."""

    table: Any = mup
    faults: Any = dataclasses.field(default_factory=dict)  # by the end of a path
    head: float = 1.0  # the power of a head's size by which attention is divided
    branch: float = 1.0  # the power of the depth by which a branch is divided
    eps: float = 1e-12
    wd: float = 0.0
    lr: float = 1e-2
    muon: Any = None

    def read(self, path, width, depth=BASE_DEPTH):
        m, deep = width / BASE, depth / BASE_DEPTH
        own = self.table(path, m, deep)
        for end, change in self.faults.items():
            if path.endswith(end):
                own = change(own, m, deep)
        return own

    def draw(self, path, width, base, depth=BASE_DEPTH):
        """An initializer: the base's standard deviation times the factor."""
        return nn.initializers.normal(base * self.read(path, width, depth).std)


class Perceptron(nn.Module):
    width: int
    form: Form

    @nn.compact
    def __call__(self, x):
        for name, fan_in in (("enter", FEATURES), ("first", BASE), ("second", BASE)):
            draw = self.form.draw(f"{name}/kernel", self.width, (2 / fan_in) ** 0.5)
            x = nn.relu(nn.Dense(self.width, kernel_init=draw, name=name)(x))
        draw = self.form.draw("readout/kernel", self.width, BASE**-0.5)
        return nn.Dense(CLASSES, kernel_init=draw, name="readout")(x)


class Block(nn.Module):
    width: int
    depth: int
    form: Form

    @nn.compact
    def __call__(self, x):
        share = (self.depth / BASE_DEPTH) ** -self.form.branch
        x = x + share * self.attend(nn.LayerNorm(name="norm")(x))
        h = nn.LayerNorm(name="norm_mlp")(x)
        h = nn.gelu(self.dense("up", BASE, 4 * self.width)(h))
        return x + share * self.dense("down", 4 * BASE, self.width)(h)

    def dense(self, name, fan_in, width):
        path = f"block/{name}/kernel"
        draw = self.form.draw(path, self.width, fan_in**-0.5, self.depth)
        return nn.Dense(width, kernel_init=draw, name=name)

    def attend(self, h, heads=4):
        size = self.width // heads
        names = "query", "key", "value"
        q, k, v = (self.dense(n, BASE, self.width)(h) for n in names)
        q, k, v = (a.reshape(*a.shape[:-1], heads, size) for a in (q, k, v))
        base = BASE // heads
        scale = base**-0.5 * (size / base) ** -self.form.head
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * scale)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(h.shape)
        return self.dense("out", BASE, self.width)(mixed)


class Transformer(nn.Module):
    width: int
    form: Form
    depth: int = BASE_DEPTH

    @nn.compact
    def __call__(self, tokens):
        form, width = self.form, self.width
        draw = form.draw("embed/embedding", width, 1.0)
        x = nn.Embed(TOKENS, width, embedding_init=draw, name="embed")(tokens)
        draw = form.draw("positions", width, 1.0)
        x = x + self.param("positions", draw, (LENGTH, width))
        for place in range(self.depth):
            x = Block(width, self.depth, form, name=f"block_{place}")(x)
        x = nn.LayerNorm(name="last")(x)
        draw = form.draw("readout/kernel", width, BASE**-0.5, self.depth)
        return nn.Dense(TOKENS, use_bias=False, kernel_init=draw, name="readout")(x)


class Branch(nn.Module):
    """A block of two layers, as one step of a loop over the depth."""

    width: int
    depth: int
    form: Form

    @nn.compact
    def __call__(self, x, _):
        share = (self.depth / BASE_DEPTH) ** -self.form.branch
        h = nn.LayerNorm(name="norm")(x)
        for name in ("up", "down"):
            path = f"block/{name}/kernel"
            draw = self.form.draw(path, self.width, BASE**-0.5, self.depth)
            h = nn.Dense(self.width, kernel_init=draw, name=name)(h)
            h = nn.relu(h) if name == "up" else h
        return x + share * h, None


class Tower(nn.Module):
    width: int
    form: Form
    depth: int

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, name="enter")(x)
        axes, streams = {"params": 0}, {"params": True}
        blocks = nn.scan(Branch, axes, split_rngs=streams, length=self.depth)
        x, _ = blocks(self.width, self.depth, self.form, name="block")(x, None)
        return nn.Dense(CLASSES, name="readout")(nn.LayerNorm(name="last")(x))


def adamw(form, width, depth=BASE_DEPTH, b1=0.9, b2=0.99):
    """AdamW with a rate, ε and decay for each leaf.

    They lie in its state, so that all forms share the program of a step.
    """

    def read(path, leaf):
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        own = form.read(text, width, depth)
        decay = form.wd * own.decay if text.endswith("kernel") else 0.0
        numbers = -form.lr * own.lr, form.eps * own.eps, decay
        return jnp.array(numbers, jnp.float32)

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        numbers = jax.tree_util.tree_map_with_path(read, params)
        return zeros, zeros, jnp.zeros(()), numbers

    def update(slopes, state, params):
        mean, square, count, numbers = state
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, mean, slopes)
        square = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g**2, square, slopes)
        count = count + 1

        def move(m, s, p, number):
            m, s = m / (1 - b1**count), s / (1 - b2**count)
            rate, eps, decay = number
            return rate * (m / (jnp.sqrt(s) + eps) + decay * p)

        moves = jax.tree.map(move, mean, square, params, numbers)
        return moves, (mean, square, count, numbers)

    return optax.GradientTransformation(init, update)


def muon(form, width):
    """Muon for the hidden matrices, whose update has a norm that no width changes."""

    def turn(g):
        x = g / (jnp.sqrt((g**2).sum()) + 1e-12)
        for _ in range(5):  # Newton and Schulz's, as Muon's authors have it
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        return x

    def update(slopes, state, params):
        return jax.tree.map(lambda g: -0.1 * state * turn(g), slopes), state

    def label(path, leaf):
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        return "muon" if kind_of(text) == "hidden" else "adam"

    factor = jnp.float32(form.muon(width))
    hidden = optax.GradientTransformation(lambda params: factor, update)
    return optax.multi_transform(
        {"muon": hidden, "adam": adamw(form, width)},
        lambda params: jax.tree_util.tree_map_with_path(label, params),
    )
