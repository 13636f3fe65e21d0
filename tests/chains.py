"""Random chains of operations after draws, as users write them.

A chain is a draw and a few operations on it, which a seed chooses; it is a function of
a key and a shape.
"""

import random
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxinit as ji

jr, jni = jax.random, jax.nn.initializers
SIZES = (1, 7, 100, 128, 129, 1000, 2**16 + 3)


def _init(init):
    return lambda key, shape, dtype: init(key, (1, *shape), dtype)[0]


def _later(draw, *numbers):
    return lambda key, shape, dtype: draw(key, *numbers, shape, dtype)


DRAWS = {  # of (key, shape, dtype)
    "normal": jr.normal,
    "uniform": jr.uniform,
    "uniform from": lambda k, s, d: jr.uniform(k, s, d, -0.3, 0.7),
    "truncated": _later(jr.truncated_normal, -2.0, 2.0),
    "truncated aside": _later(jr.truncated_normal, -0.5, 3.0),
    "laplace": jr.laplace,
    "gumbel": jr.gumbel,
    "logistic": jr.logistic,
    "cauchy": jr.cauchy,
    "exponential": jr.exponential,
    "maxwell": jr.maxwell,
    "double maxwell": _later(jr.double_sided_maxwell, 0.1, 1.5),
    "rayleigh": _later(jr.rayleigh, 1.5),
    "weibull": _later(jr.weibull_min, 1.5, 2.0),
    "pareto": _later(jr.pareto, 3.0),
    "lognormal": _later(jr.lognormal, 0.5),
    "triangular": _later(jr.triangular, -1.0, 0.5, 2.0),
    "rademacher": jr.rademacher,
    "bits": lambda k, s, d: jr.bits(k, s),
    "integers": lambda k, s, d: jr.randint(k, s, -5, 9),
    "bernoulli": lambda k, s, d: jr.bernoulli(k, 0.3, s),
    "stock normal": _init(jni.normal(0.02)),
    "stock uniform": _init(jni.uniform(0.3)),
    "stock truncated": _init(jni.truncated_normal(0.02)),
    "stock he": _init(jni.he_normal()),
    "stock glorot": _init(jni.glorot_uniform()),
    "stock lecun": _init(jni.lecun_normal()),
    "ours normal": _init(ji.normal(0.02)),
    "ours uniform": _init(ji.uniform(low=-0.1, high=0.2)),
    "ours truncated": _init(ji.truncated_normal(0.3)),
    "ours he": _init(ji.he_normal(gain="gelu")),
    "ours glorot": _init(ji.glorot_uniform()),
    "ours draw": ji.random.normal,
    "ours between": lambda k, s, d: ji.random.uniform(k, s, d, -0.4, 0.9),
    "ours cut": _later(ji.random.truncated_normal, -1.0, 2.0),
}
NO_COMPLEX = {  # those whose dtype may not be complex
    *("uniform", "uniform from", "truncated", "truncated aside", "laplace", "gumbel"),
    *("logistic", "cauchy", "exponential", "maxwell", "double maxwell", "rayleigh"),
    *("weibull", "pareto", "lognormal", "triangular", "ours between", "stock uniform"),
    *("ours uniform", "ours truncated", "stock truncated"),
}


def _real(operation):
    """Leaves out what is complex, or no float."""

    def run(x):
        return operation(x) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return run


def _inexact(operation):
    def run(x):
        return operation(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return run


def _scalar(operation, number):
    """Applies to the array and a Python number, or one of the array's dtype."""
    return _inexact(lambda x: operation(x, number))


def _typed(operation, number):
    return _inexact(lambda x: operation(x, np.asarray(number, x.dtype)))


def _array(operation, factor):
    def run(x):
        values = np.linspace(0.5, 1.5, x.size).reshape(x.shape)
        return operation(x, (factor * values).astype(x.dtype))

    return _inexact(run)


def _row(operation):
    def run(x):
        if not x.ndim:
            return x
        row = jnp.arange(x.shape[-1], dtype=np.float32).astype(x.dtype)
        return operation(x, row)

    return _inexact(run)


def _cast(dtype):
    def run(x):
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            return x
        return x.astype(dtype)

    return run


UNARY = {
    name: _real(getattr(jnp, name))
    for name in (
        *("negative", "abs", "exp", "exp2", "expm1", "sin", "cos", "tan", "tanh"),
        *("square", "sign", "floor", "round", "cbrt", "sinh", "cosh", "arctan"),
        *("reciprocal", "ceil", "arcsinh"),
    )
} | {
    name: _real(getattr(jax.nn, name))
    for name in ("relu", "gelu", "silu", "sigmoid", "softplus", "elu")
}
UNARY |= {
    "sqrt": _real(lambda x: jnp.sqrt(jnp.abs(x))),
    "rsqrt": _real(lambda x: jax.lax.rsqrt(jnp.abs(x))),
    "log": _real(lambda x: jnp.log(jnp.abs(x))),
    "log1p": _real(lambda x: jnp.log1p(jnp.abs(x))),
    "arcsin": _real(lambda x: jnp.arcsin(jnp.clip(x, -1, 1))),
    "arctanh": _real(lambda x: jnp.arctanh(jnp.clip(x, -0.9, 0.9))),
    "erf": _real(jax.lax.erf),
    "erf_inv": _real(lambda x: jax.lax.erf_inv(jnp.clip(x, -1, 1))),
    "cube": _inexact(lambda x: x**3),
    "power": _real(lambda x: jnp.abs(x) ** 0.3),
    "conj": _inexact(jnp.conj),
    "stop": jax.lax.stop_gradient,
}
BINARY = {
    "mul": jnp.multiply,
    "add": jnp.add,
    "sub": jnp.subtract,
    "div": jnp.divide,
    "from": lambda x, c: c - x,
    "under": lambda x, c: c / x,
}
NUMBERS = (
    0.02,
    0.3,
    0.7,
    0.9,
    3.0,
    2.0,
    0.5,
    -1.0,
    1e-3,
    1e-20,
    1e-38,
    1e20,
    1.0,
    1 / 3,
)
CHOICE = {
    "clip": _real(lambda x: jnp.clip(x, -0.5, 0.8)),
    "clip far": _real(lambda x: jnp.clip(x, -3, 3)),
    "maximum": _real(lambda x: jnp.maximum(x, -0.2)),
    "minimum": _real(lambda x: jnp.minimum(x, 0.4)),
    "where": _real(lambda x: jnp.where(x > 0, x, 0.1 * x)),
    "where number": _real(lambda x: jnp.where(x > 0.5, 1.0, x)),
    "where not": _real(lambda x: jnp.where(jnp.abs(x) < 1, x * 0.3, x + 1)),
    "greater": _real(lambda x: (x > 0.1).astype(x.dtype)),
    "mod": _real(lambda x: x % 0.7),
}
SHAPES = {
    "flat": jnp.ravel,
    "column": lambda x: x.reshape(-1, 1),
    "transposed": jnp.transpose,
    "flip": lambda x: x[::-1] if x.ndim else x,
    "half": lambda x: x[::2] if x.ndim else x,
    "twice": lambda x: jnp.broadcast_to(x, (2, *x.shape)),
    "joined": lambda x: jnp.concatenate([x, x * 2]) if x.ndim else x,
    "padded": lambda x: jnp.pad(x, 1),
    "rolled": lambda x: jnp.roll(x, 3),
}
WHOLES = {
    "centered": _real(lambda x: x - x.mean()),
    "normed": _real(lambda x: x / jnp.linalg.norm(x.ravel())),
    "standard": _real(lambda x: x / (x.std() + 1e-3)),
    "sorted": _real(lambda x: jnp.sort(x.ravel())),
    "summed": _real(lambda x: jnp.cumsum(x.ravel())),
    "softmax": _real(lambda x: jax.nn.softmax(x.ravel())),
    "again": lambda x: x + x,
    "with itself": _inexact(lambda x: x * (x + 1)),
}
CASTS = {name: _cast(name) for name in ("float32", "bfloat16", "float16", "int32")}


def operation(rng: random.Random) -> tuple[str, Callable]:
    """Chooses an operation; most are what users write after a draw."""
    match rng.choices(
        ["scalar", "typed", "array", "unary", "choice", "cast", "shape", "whole"],
        [6, 2, 1, 3, 2, 1, 1, 0.5],
    )[0]:
        case "scalar" | "typed" as kind:
            name = rng.choices(list(BINARY), [8, 3, 1, 3, 1, 1])[0]
            number = rng.choice(NUMBERS)
            of = _scalar if kind == "scalar" else _typed
            return f"{name} {number:.3g} {kind}", of(BINARY[name], number)
        case "array":
            name = rng.choice(list(BINARY))
            if rng.random() < 0.5:
                return f"{name} row", _row(BINARY[name])
            return f"{name} array", _array(BINARY[name], rng.choice(NUMBERS))
        case "unary":
            table = UNARY
        case "choice":
            table = CHOICE
        case "cast":
            table = CASTS
        case "shape":
            table = SHAPES
        case "whole":
            table = WHOLES
    name = rng.choice(list(table))
    return name, table[name]


def chain(seed, dtypes=("float32",), sizes=SIZES, draws=None, most=5):
    """Makes a chain: its name, and what makes an array of a key."""
    rng = random.Random(seed)
    dtype = rng.choice(dtypes)
    known = [
        name
        for name in draws or DRAWS
        if not (np.dtype(dtype).kind == "c" and name in NO_COMPLEX)
    ]
    draw = rng.choice(known)
    size = rng.choice(sizes)
    shape = rng.choice([(size,), (size, 1)] if size % 2 else [(size,), (2, size // 2)])
    operations = [operation(rng) for _ in range(rng.randrange(most + 1))]

    def run(key):
        x = DRAWS[draw](key, shape, jnp.dtype(dtype))
        for _, change in operations:
            x = change(x)
        return x

    names = ", ".join(name for name, _ in operations)
    return f"{seed}: {draw} {dtype}{list(shape)}: {names}", run


def chains(seeds, **how):
    """Makes a function of a key that returns a chain for each seed, by name."""
    made = dict(chain(seed, **how) for seed in seeds)

    def run(key):
        return {
            name: each(jax.random.fold_in(key, i))
            for i, (name, each) in enumerate(made.items())
        }

    return run
