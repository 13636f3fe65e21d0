"""Recurrent networks and state spaces."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from architecture import Architecture, data, make
from flax import nnx

STEPS = (data(3, 7, 6),)


class LinenRnn(nn.Module):
    cell: type

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name="last")(nn.RNN(self.cell(8, name="cell"))(x)[:, -1])


class TwoLayers(nn.Module):
    """Two layers, the first in both directions."""

    @nn.compact
    def __call__(self, x):
        x = nn.Bidirectional(
            nn.RNN(nn.GRUCell(8, name="there")), nn.RNN(nn.GRUCell(8, name="back"))
        )(x)
        x = nn.RNN(nn.SimpleCell(10, name="second"))(x)
        return nn.Dense(4, name="last")(x)


class NnxRnn(nnx.Module):
    cell_class = nnx.LSTMCell

    def __init__(self, rngs):
        self.rnn = nnx.RNN(self.cell_class(6, 8, rngs=rngs))
        self.last = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        return self.last(self.rnn(x)[:, -1])


class NnxOptimized(NnxRnn):
    cell_class = nnx.OptimizedLSTMCell


class NnxGru(NnxRnn):
    cell_class = nnx.GRUCell


class EquinoxGru(eqx.Module):
    cell: eqx.nn.GRUCell
    last: eqx.nn.Linear

    def __init__(self, key):
        self.cell = eqx.nn.GRUCell(6, 8, key=key)
        self.last = eqx.nn.Linear(8, 4, key=key)

    def __call__(self, x):
        def step(h, x):
            return self.cell(x, h), None

        return self.last(jax.lax.scan(step, jnp.zeros(8), x)[0])


def call_haiku_lstm(x):
    core = hk.LSTM(8)
    x, _ = hk.dynamic_unroll(
        core, jnp.swapaxes(x, 0, 1), core.initial_state(x.shape[0])
    )
    return hk.Linear(4)(x[-1])


def call_haiku_gru(x):
    core = hk.GRU(8)
    x, _ = hk.dynamic_unroll(
        core, jnp.swapaxes(x, 0, 1), core.initial_state(x.shape[0])
    )
    return hk.Linear(4)(x[-1])


def call_elman(p, x):
    """A first state that is learned; all states are read."""

    def step(h, x):
        h = jnp.tanh(x @ p["w"] + h @ p["u"] + p["b"])
        return h, h

    start = jnp.broadcast_to(p["start"], (3, 8))
    _, states = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))
    return states @ p["out"]


def call_unrolled(p, x):
    """The loop written out: nothing tells its state from a layer's output."""
    h = jnp.zeros((3, 8))
    for i in range(7):
        h = jnp.tanh(x[:, i] @ p["w"] + h @ p["u"] + p["b"])
    return h @ p["out"]


def call_s4d(p, x):
    """A diagonal state space of each channel, in a loop, with gates behind it."""
    x = x @ p["stem"]
    step = jnp.exp(p["log_step"])[:, None]
    decay = jnp.exp(-jnp.exp(p["a_log"]) * step)

    def advance(h, u):
        h = decay * h + step * p["b"] * u[..., None]
        return h, (h * p["c"]).sum(-1) + p["d"] * u

    _, y = jax.lax.scan(advance, jnp.zeros((3, 8, 4)), jnp.swapaxes(x, 0, 1))
    return jax.nn.gelu(y) @ p["head"]


class Mamba(nn.Module):
    """A selective state space: steps, inputs and outputs of the state are data."""

    associative: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, name="stem")(x)
        inner, size, rank = 12, 4, 2
        h = nn.Dense(2 * inner, use_bias=False, name="in")(nn.RMSNorm(name="norm")(x))
        u, z = jnp.split(h, 2, -1)
        u = nn.Conv(
            inner, (4,), padding="CAUSAL", feature_group_count=inner, name="conv"
        )(u)
        u = nn.silu(u)
        h = nn.Dense(rank + 2 * size, use_bias=False, name="select")(u)
        step, b, c = jnp.split(h, (rank, rank + size), -1)
        step = nn.softplus(nn.Dense(inner, name="step")(step))
        ones = nn.initializers.ones
        a = -jnp.exp(self.param("A_log", ones, (inner, size)))
        decay = jnp.exp(step[..., None] * a)
        into = (step * u)[..., None] * b[..., None, :]
        if self.associative:

            def join(one, two):
                return one[0] * two[0], one[1] * two[0] + two[1]

            _, states = jax.lax.associative_scan(join, (decay, into), axis=1)
        else:

            def advance(h, args):
                h = args[0] * h + args[1]
                return h, h

            start = jnp.zeros((3, inner, size))
            swapped = (jnp.swapaxes(decay, 0, 1), jnp.swapaxes(into, 0, 1))
            states = jnp.swapaxes(jax.lax.scan(advance, start, swapped)[1], 0, 1)
        y = jnp.einsum("blds,bls->bld", states, c) + self.param("D", ones, (inner,)) * u
        x = x + nn.Dense(6, use_bias=False, name="out")(y * nn.silu(z))
        return nn.Dense(4, name="last")(x)


def call_gated_recurrence(p, x):
    """RG-LRU: a rate of each channel, which a gate made of data raises to a power."""
    x = x @ p["stem"]
    log_a = -8 * jax.nn.softplus(p["rate"]) * jax.nn.sigmoid(x @ p["gate"])
    a = jnp.exp(log_a)
    u = jnp.sqrt(1 - a**2) * x * jax.nn.sigmoid(x @ p["pass"])

    def advance(h, args):
        h = args[0] * h + args[1]
        return h, h

    rows = jnp.swapaxes(a, 0, 1), jnp.swapaxes(u, 0, 1)
    _, y = jax.lax.scan(advance, jnp.zeros((3, 8)), rows)
    return y @ p["head"]


def _cell(gates_in, gates_back, sizes_in, sizes_back):
    """Returns what a cell's kernels are, of the paths before their last name."""
    return {name: ("input", sizes_in) for name in gates_in} | {
        name: ("recurrent", sizes_back) for name in gates_back
    }


LAST = {"*/last/kernel": ("readout", (8, 4))}
LSTM = _cell(
    [f"*/cell/i{g}/kernel" for g in "ifgo"],
    [f"*/cell/h{g}/kernel" for g in "ifgo"],
    (6, 8),
    (8, 8),
)
MAMBA = {
    "*/stem/kernel": ("input", (6, 6)),
    "*/norm/scale": "gain",
    "*/in/kernel": ("hidden", (6, 12)),  # two blocks
    "*/conv/kernel": ("hidden", (4, 4)),
    "*/select/kernel": ("hidden", (12, 10)),  # three, but not of one size
    "*/step/kernel": ("hidden", (2, 12)),
    "A_log": "state",
    "D": "gain",
    "*/out/kernel": ("residual", (12, 6)),
    "*/last/kernel": ("readout", (6, 4)),
    "*/bias": "bias",
}

RECURRENT = {
    "LSTM, Linen": Architecture(
        LinenRnn(nn.LSTMCell), STEPS, LSTM | LAST | {"*/bias": "bias"}
    ),
    "LSTM, optimized, Linen": Architecture(
        LinenRnn(nn.OptimizedLSTMCell), STEPS, LSTM | LAST | {"*/bias": "bias"}
    ),
    "GRU, Linen": Architecture(
        LinenRnn(nn.GRUCell),
        STEPS,
        _cell(
            [f"*/cell/i{g}/kernel" for g in "rzn"],
            [f"*/cell/h{g}/kernel" for g in "rzn"],
            (6, 8),
            (8, 8),
        )
        | LAST
        | {"*/bias": "bias"},
    ),
    "GRU in both directions, a simple cell, Linen": Architecture(
        TwoLayers(),
        STEPS,
        _cell(
            [f"*/{cell}/i{g}/kernel" for g in "rzn" for cell in ("there", "back")],
            [f"*/{cell}/h{g}/kernel" for g in "rzn" for cell in ("there", "back")],
            (6, 8),
            (8, 8),
        )
        | {
            "*/second/i/kernel": ("hidden", (16, 10)),
            "*/second/h/kernel": ("recurrent", (10, 10)),
            "*/last/kernel": ("readout", (10, 4)),
            "*/bias": "bias",
        },
    ),
    "LSTM, NNX": Architecture(
        NnxRnn,
        STEPS,
        _cell(
            [f"rnn/cell/i{g}*/kernel" for g in "ifgo"],
            [f"rnn/cell/h{g}/kernel" for g in "ifgo"],
            (6, 8),
            (8, 8),
        )
        | LAST
        | {"*/bias": "bias"},
    ),
    # Gates side by side are blocks of outputs.
    "LSTM, optimized, NNX": Architecture(
        NnxOptimized,
        STEPS,
        {
            "*/dense_i/kernel": ("input", (6, 8)),
            "*/dense_h/kernel": ("recurrent", (8, 8)),
            "*/bias": "bias",
        }
        | LAST,
    ),
    "GRU, NNX": Architecture(
        NnxGru,
        STEPS,
        {
            "*/dense_i/kernel": ("input", (6, 8)),
            "*/dense_h/kernel": ("recurrent", (8, 8)),
            "*/bias": "bias",
        }
        | LAST,
    ),
    "GRU, Equinox": Architecture(
        EquinoxGru,
        STEPS,
        {
            "cell/weight_ih": ("input", (6, 8)),
            "cell/weight_hh": ("recurrent", (8, 8)),
            "cell/bias*": "bias",
            "last/weight": ("readout", (8, 4)),
            "last/bias": "bias",
        },
    ),
    # Haiku's LSTM multiplies inputs and state by one weight: it reads both.
    "LSTM, Haiku": Architecture(
        hk.without_apply_rng(hk.transform(call_haiku_lstm)),
        STEPS,
        {
            "lstm/linear/w": ("recurrent", (14, 8)),
            "linear/w": ("readout", (8, 4)),
            "*/b": "bias",
        },
    ),
    # Three gates side by side; the state's are used two and one, no equal blocks.
    "GRU, Haiku": Architecture(
        hk.without_apply_rng(hk.transform(call_haiku_gru)),
        STEPS,
        {
            "gru/w_i": ("input", (6, 24)),
            "gru/w_h": ("recurrent", (8, 24)),
            "gru/b": "bias",
            "linear/w": ("readout", (8, 4)),
            "linear/b": "bias",
        },
    ),
    "recurrence with a learned start": Architecture(
        (make(w=(6, 8), u=(8, 8), b=(8,), start=(8,), out=(8, 4)), call_elman),
        STEPS,
        {
            "w": ("input", (6, 8)),
            "u": ("recurrent", (8, 8)),
            "b": "bias",
            "start": "state",
            "out": ("readout", (8, 4)),
        },
    ),
    "recurrence written out": Architecture(
        (make(w=(6, 8), u=(8, 8), b=(8,), out=(8, 4)), call_unrolled),
        STEPS,
        {
            "w": ("input", (6, 8)),
            "u": ("hidden", (8, 8)),
            "b": "bias",
            "out": ("readout", (8, 4)),
        },
    ),
    # What enters the state and leaves it is one product of each channel: 1 input feeds
    # 4 entries, which feed 1 output. The first is entry by entry.
    "state space, S4D": Architecture(
        (
            make(
                stem=(6, 8),
                log_step=(8,),
                a_log=(8, 4),
                b=(8, 4),
                c=(8, 4),
                d=(8,),
                head=(8, 4),
            ),
            call_s4d,
        ),
        STEPS,
        {
            "stem": ("input", (6, 8)),
            "log_step": "state",
            "a_log": "state",
            "b": "gain",
            "c": ("hidden", (4, 1)),
            "d": "gain",
            "head": ("readout", (8, 4)),
        },
    ),
    "state space, Mamba, scan": Architecture(Mamba(), STEPS, MAMBA, branches=1),
    "state space, Mamba, associative scan": Architecture(
        Mamba(associative=True), STEPS, MAMBA, branches=1
    ),
    "state space, gated": Architecture(
        (
            make(stem=(6, 8), rate=(8,), gate=(8, 8), **{"pass": (8, 8)}, head=(8, 4)),
            call_gated_recurrence,
        ),
        STEPS,
        {
            "stem": ("input", (6, 8)),
            "rate": "state",
            "gate": ("hidden", (8, 8)),
            "pass": ("hidden", (8, 8)),
            "head": ("readout", (8, 4)),
        },
    ),
}
