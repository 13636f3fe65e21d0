"""Optimizers with factors by parameter: beside optax's, and beside loops by hand."""

import dataclasses
import sys

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from optax.contrib import MuonDimensionNumbers as Dims

import jaxinit
from jaxinit._structure.result import TracedParameter
from jaxinit.scaling import ScaledParameter, _transforms
from jaxinit.scaling._muon import muon_dimensions

# Optax mixes dtypes: Adam raises a Python float to the power of an int32 count.
pytestmark = pytest.mark.usefixtures("quick_compiler", "standard_promotion")

KEY = jax.random.key(7)
SIZES = {
    "table": ((20, 6), "embedding"),
    "in": ((5, 6), "input"),
    "up": ((6, 12), "hidden"),
    "down": ((12, 6), "hidden"),
    "gain": ((6,), "vector"),
    "out": ((6, 3), "readout"),
}
FACTORS = {
    "table": dict(lr={"sgd": 4.0}, eps=0.25),
    "in": dict(lr={"sgd": 4.0, "muon": 2.0}, eps=0.25),
    "up": dict(lr={"adam": 0.25, "muon": 0.5}, eps=0.125, decay=4.0),
    "down": dict(lr={"adam": 0.1, "sgd": 0.3}, eps=0.01, decay=7.0),
    "gain": dict(lr={"sgd": 4.0, "adam": 3.0}, eps=0.25),
    "out": dict(lr={"sgd": 4.0, "adam": 3.0}, eps=0.25, decay=0.5),
}


def make_row(path, shape, kind, traced=None, **factors):
    axes = {"in_axis": (0,), "out_axis": (1,)} if len(shape) == 2 else {}
    traced = traced or TracedParameter(
        path=path, shape=shape, dtype=jnp.float32, roles=("hidden",), **axes
    )
    more = {"traced_base": traced, "base": path, "in_block": False} | factors
    return ScaledParameter(path=path, traced=traced, kind=kind, **more)


ONES = {path: make_row(path, *sizes) for path, sizes in SIZES.items()}
ROWS = {path: dataclasses.replace(row, **FACTORS[path]) for path, row in ONES.items()}


def draw(shapes, seed):
    keys = jax.random.split(jax.random.fold_in(KEY, seed), len(shapes))
    pairs = zip(shapes.items(), keys, strict=True)
    return {path: jax.random.normal(key, shape) for (path, shape), key in pairs}


SHAPES = {path: shape for path, (shape, _) in SIZES.items()}
PARAMS = draw(SHAPES, 0)
GRADS = [draw(SHAPES, step) for step in (1, 2, 3)]


def train(tx, params=PARAMS, grads=GRADS):
    """Returns what some steps make of parameters, and the last state."""

    @jax.jit
    def step(grad, state, params):
        updates, state = tx.update(grad, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for grad in grads:
        params, state = step(grad, state, params)
    return params, state


def assert_same(made, expected):
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, made, expected)


def assert_near(made, expected, tolerance=1e-5):
    for path, value in expected.items():
        scale = abs(np.asarray(value)).max()
        np.testing.assert_allclose(
            made[path], value, rtol=0, atol=tolerance * scale, err_msg=path
        )


# factors of 1

RATE = optax.linear_schedule(0.1, 0.01, 3)
MASK = {path: len(shape) > 1 for path, shape in SHAPES.items()}
DIMS = {path: Dims((0,), (1,)) for path in ("in", "up", "down")}
DIMS = {path: DIMS.get(path) for path in SHAPES}
LIKE_OPTAX = {
    "sgd": (
        lambda rows: _transforms.sgd(rows, 0.1, 0.9, True, jnp.bfloat16),
        lambda: optax.sgd(0.1, 0.9, True, jnp.bfloat16),
    ),
    "sgd, plain, by schedule": (
        lambda rows: _transforms.sgd(rows, RATE),
        lambda: optax.sgd(RATE),
    ),
    "adamw": (
        lambda rows: _transforms.adamw(rows, 0.1),
        lambda: optax.adamw(0.1),
    ),
    "adamw, all arguments": (
        lambda rows: _transforms.adamw(
            *(rows, RATE, 0.8, 0.9, 1e-3, 1e-4, jnp.bfloat16, 0.1, MASK), nesterov=True
        ),
        lambda: optax.adamw(
            *(RATE, 0.8, 0.9, 1e-3, 1e-4, jnp.bfloat16, 0.1, MASK), nesterov=True
        ),
    ),
    "lion": (
        lambda rows: _transforms.lion(rows, RATE, 0.8, 0.9, None, 0.1, MASK),
        lambda: optax.lion(RATE, 0.8, 0.9, None, 0.1, MASK),
    ),
    "muon": (
        lambda rows: _transforms.muon(rows, RATE, weight_decay=0.1),
        lambda: optax.contrib.muon(
            RATE, weight_decay=0.1, muon_weight_dimension_numbers=DIMS
        ),
    ),
    "muon, consistent rms": (
        lambda rows: _transforms.muon(
            rows, 0.1, ns_steps=3, consistent_rms=0.2, adam_learning_rate=RATE
        ),
        lambda: optax.contrib.muon(
            *(0.1, (3.4445, -4.7750, 2.0315), 3),
            consistent_rms=0.2,
            adam_learning_rate=RATE,
            muon_weight_dimension_numbers=DIMS,
        ),
    ),
}


@pytest.mark.parametrize("name", LIKE_OPTAX)
def test_factors_of_one_give_bits_and_state_of_optax(name):
    ours, theirs = LIKE_OPTAX[name]
    assert_same(train(ours(ONES)), train(theirs()))


def test_arguments_are_those_of_optax():
    import inspect

    for ours, theirs in (
        (_transforms.sgd, optax.sgd),
        (_transforms.adamw, optax.adamw),
        (_transforms.lion, optax.lion),
        (_transforms.muon, optax.contrib.muon),
    ):
        mine = inspect.signature(ours).parameters
        assert next(iter(mine)) == "rows"
        wanted = dict(inspect.signature(theirs).parameters)
        wanted.pop("muon_weight_dimension_numbers", None)
        shared = {name: mine[name] for name in mine if name in wanted}
        assert list(shared) == list(wanted)
        for name, parameter in wanted.items():
            same = shared[name].default, shared[name].kind
            assert same == (parameter.default, parameter.kind), name


# factors


def rate_of(path, optimizer):
    return FACTORS[path]["lr"].get(optimizer, 1.0)


def decay_of(path):
    return FACTORS[path].get("decay", 1.0)


def adamw_by_hand(path, rate, eps, weight_decay, independent=False):
    w, m, v = np.asarray(PARAMS[path], float), 0.0, 0.0
    own = rate_of(path, "adam")
    for t, grad in enumerate(GRADS, 1):
        g = np.asarray(grad[path], float)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = (
            m
            / (1 - 0.9**t)
            / (np.sqrt(v / (1 - 0.999**t)) + eps * FACTORS[path]["eps"])
        )
        shrink = 1 if independent else own * decay_of(path)
        w = w - float(rate(t - 1)) * (own * u + shrink * weight_decay * w)
    return w


@pytest.mark.parametrize("independent", [False, True])
def test_adamw_by_hand(independent):
    tx = _transforms.adamw(
        ROWS, RATE, eps=0.3, weight_decay=0.2, independent=independent
    )
    made, _ = train(tx)
    assert_near(
        made, {path: adamw_by_hand(path, RATE, 0.3, 0.2, independent) for path in ROWS}
    )


def test_lr_is_one_part_of_a_chain():
    tx = optax.chain(
        optax.scale_by_adam(eps=0.3),
        _transforms.lr(ROWS),
        optax.add_decayed_weights(0.2),
        optax.scale_by_learning_rate(RATE),
    )
    made, _ = train(tx)
    no_eps = {path: row for path, row in ROWS.items()}
    wanted = _transforms.adamw(
        {path: dataclasses.replace(row, eps=1.0) for path, row in no_eps.items()},
        *(RATE, 0.9, 0.999, 0.3),
        weight_decay=0.2,
        independent=True,
    )
    assert_near(made, train(wanted)[0])
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    for optimizer in ("sgd", "muon"):
        made, _ = _transforms.lr(ROWS, optimizer).update(ones, optax.EmptyState())
        for path, row in ROWS.items():
            by_adam = optimizer == "muon" and row.kind not in ("input", "hidden")
            factor = rate_of(path, "adam" if by_adam else optimizer)
            np.testing.assert_array_equal(made[path], np.float32(factor))


def test_sgd_by_hand():
    tx = _transforms.sgd(ROWS, RATE, 0.9, weight_decay=0.2)
    made, _ = train(tx)
    for path in ROWS:
        w, m = np.asarray(PARAMS[path], float), 0.0
        for t, grad in enumerate(GRADS):
            own, shrink = rate_of(path, "sgd"), rate_of(path, "adam") * decay_of(path)
            m = 0.9 * m + own * np.asarray(grad[path], float) + shrink * 0.2 * w
            w = w - float(RATE(t)) * m
        assert_near(made, {path: w})


def test_lion_by_hand():
    made, _ = train(_transforms.lion(ROWS, RATE, weight_decay=0.2))
    for path in ROWS:
        w, m = np.asarray(PARAMS[path], float), 0.0
        for t, grad in enumerate(GRADS):
            g, own = np.asarray(grad[path], float), rate_of(path, "adam")
            u = np.sign(0.9 * m + 0.1 * g) + decay_of(path) * 0.2 * w
            w, m = w - float(RATE(t)) * own * u, 0.99 * m + 0.01 * g
        assert_near(made, {path: w})


def orthonormal(g):
    """Newton-Schulz as Muon has it."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if g.shape[0] > g.shape[1] else x


@pytest.mark.parametrize("rms", [None, 0.2])
def test_muon_by_hand_has_the_factor_of_the_bases_sizes(rms):
    grown = {"in": ((5, 3), (5, 6)), "up": ((3, 6), (6, 12)), "down": ((6, 3), (12, 6))}
    rows = dict(ROWS)
    for path, (base, _) in grown.items():
        traced = dataclasses.replace(rows[path].traced, shape=base)
        rows[path] = dataclasses.replace(rows[path], traced_base=traced)
    tx = _transforms.muon(
        rows, RATE, weight_decay=0.2, eps=1e-8, consistent_rms=rms, nesterov=False
    )
    made, _ = train(tx)
    for path, ((inputs, outputs), _) in grown.items():
        scale = max(1, outputs / inputs) ** 0.5
        scale = scale if rms is None else rms * max(inputs, outputs) ** 0.5
        w, m = np.asarray(PARAMS[path], float), 0.0
        for t, grad in enumerate(GRADS):
            m = 0.95 * m + 0.05 * np.asarray(grad[path], float)
            u = rate_of(path, "muon") * scale * orthonormal(m / (1 - 0.95 ** (t + 1)))
            shrink = rate_of(path, "adam") * decay_of(path)
            w = w - float(RATE(t)) * (u + shrink * 0.2 * w)
        assert_near(made, {path: w}, 1e-4)
    by_adam = {path: adamw_by_hand(path, RATE, 1e-8, 0.0) for path in ("table", "gain")}
    assert_near(made, by_adam | {"out": adamw_by_hand("out", RATE, 1e-8, 0.0)})


# within optax


def test_hyperparameters_are_injected():
    for build in (_transforms.adamw, _transforms.sgd, _transforms.lion):
        inject = optax.inject_hyperparams(build)
        made, state = train(inject(ROWS, learning_rate=RATE, weight_decay=0.2))
        assert {"learning_rate", "weight_decay"} <= set(state.hyperparams)
        assert_near(made, train(build(ROWS, RATE, weight_decay=0.2))[0])
    inject = optax.inject_hyperparams(
        _transforms.muon, static_args=("ns_steps", "preconditioning")
    )
    made, state = train(inject(ROWS, learning_rate=0.1))
    assert_near(made, train(_transforms.muon(ROWS, 0.1))[0], 1e-4)


def test_part_of_a_tree():
    """Each parameter is as if all were trained, wherever others are hidden."""
    whole, _ = train(_transforms.adamw(ROWS, 0.1))
    labels = {path: "sgd" if path in ("gain", "in") else "adam" for path in ROWS}
    parts = {"adam": _transforms.adamw(ROWS, 0.1), "sgd": _transforms.sgd(ROWS, 0.1)}
    made, _ = train(optax.multi_transform(parts, labels))
    sgd, _ = train(_transforms.sgd(ROWS, 0.1))
    for path, label in labels.items():
        np.testing.assert_array_equal(
            made[path], (sgd if label == "sgd" else whole)[path]
        )
    none = {path: None if path == "gain" else leaf for path, leaf in PARAMS.items()}
    grads = [{**grad, "gain": None} for grad in GRADS]
    made, _ = train(_transforms.adamw(ROWS, 0.1), none, grads)
    assert_same(made, {**whole, "gain": None})
    nested = {"params": {"deep": PARAMS, "value": {"value": PARAMS["in"]}}}
    rows = {f"deep/{path}": row for path, row in ROWS.items()}
    rows["value/value"] = ROWS["in"]
    for hide in ({"deep": True, "value": False}, {"deep": False, "value": True}):
        tx = optax.masked(_transforms.lr(rows), {"params": hide})
        made, _ = tx.update(nested, tx.init(nested))
        factor = 3.0 if hide["deep"] else 1.0
        wanted = factor * PARAMS["out"]
        np.testing.assert_array_equal(made["params"]["deep"]["out"], wanted)


def test_gradients_that_are_none():
    """As those of what a function does not differentiate, in Equinox."""
    tx = _transforms.adamw(ROWS, 0.1)
    state = tx.init(PARAMS)
    updates, state = tx.update({**GRADS[0], "gain": None}, state, PARAMS)
    assert updates["gain"] is None and jax.tree.structure(
        state[0].mu
    ) == jax.tree.structure(PARAMS)


def test_steps_are_gathered_and_states_mapped():
    tx = optax.MultiSteps(_transforms.adamw(ROWS, 0.1), 2)
    made, _ = train(tx, grads=[GRADS[0], GRADS[0], GRADS[1], GRADS[1]])
    assert_near(made, train(_transforms.adamw(ROWS, 0.1), grads=GRADS[:2])[0])
    inner = _transforms.adamw(ROWS, 0.1)
    state = optax.tree_utils.tree_map_params(inner, jnp.ones_like, inner.init(PARAMS))
    assert float(state[0].mu["up"].min()) == 1 and int(state[0].count) == 0


def test_integers_are_left_alone():
    params = {**PARAMS, "steps": jnp.arange(3)}
    updates, _ = _transforms.lr(ROWS).update(params, optax.EmptyState())
    np.testing.assert_array_equal(updates["steps"], params["steps"])


# dimension numbers


def call_all(p, x):
    x = x @ p["in"] + p["bias"]
    x = x * p["gain"]
    x = convolve(convolve(jax.nn.relu(convolve(x, p["conv"])), p["deep"]), p["groups"])
    q, k, v = (jnp.einsum("btd,dhk->bthk", x, p[name]) for name in "qkv")
    a = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
    y = jnp.einsum("bhts,bshk->bthk", a, v)
    x = x + jnp.einsum("bthk,hkd->btd", y, p["o"])
    q, k, v = jnp.moveaxis(jnp.einsum("btd,dnhk->btnhk", x, p["fused"]), 2, 0)
    a = jax.nn.softmax(jnp.einsum("bthk,bshk->bhts", q, k))
    y = jnp.einsum("bhts,bshk->bthk", a, v)
    x = x + jnp.einsum("bthk,dhk->btd", y, p["turned"])
    x, _ = jax.lax.scan(lambda x, w: (x + jax.nn.relu(x @ w), None), x, p["stack"])
    weights = jax.nn.softmax(x @ p["router"])
    y = jax.nn.relu(jnp.einsum("btd,edf->btef", x, p["up"]))
    x = x + jnp.einsum("btef,efd,bte->btd", y, p["down"], weights)
    return x @ p["out"]


def convolve(x, w):
    groups = x.shape[-1] // w.shape[1]
    return jax.lax.conv_general_dilated(
        *(x, w, (1,), "SAME"),
        dimension_numbers=("NHC", "HIO", "NHC"),
        feature_group_count=groups,
    )


ALL = {
    "in": ((5, 8), Dims((0,), (1,))),
    "bias": ((8,), None),
    "gain": ((8,), None),
    "conv": ((3, 8, 8), Dims((0, 1), (2,))),
    "deep": ((3, 1, 8), None),
    "groups": ((3, 4, 8), None),
    "q": ((8, 2, 4), Dims((0,), (1, 2))),
    "k": ((8, 2, 4), Dims((0,), (1, 2))),
    "v": ((8, 2, 4), Dims((0,), (1, 2))),
    "o": ((2, 4, 8), Dims((0, 1), (2,))),
    "fused": ((8, 3, 2, 4), Dims((0,), (2, 3))),
    "turned": ((8, 2, 4), Dims((1, 2), (0,))),
    "stack": ((3, 8, 8), Dims((1,), (2,))),
    "router": ((8, 4), Dims((0,), (1,))),
    "up": ((4, 8, 6), Dims((1,), (2,))),
    "down": ((4, 6, 8), Dims((1,), (2,))),
    "out": ((8, 3), None),
}


def read_rows(structure, **factors):
    """Rows of a real structure, with the same factors for all hidden kernels."""
    rows = {}
    for path, traced in structure.items():
        roles = {*traced.roles}
        kind = next((r for r in ("embedding", "readout", "input") if r in roles), None)
        kind = kind or ("hidden" if traced.is_kernel else "vector")
        more = factors if kind == "hidden" else {}
        rows[path] = make_row(path, traced.shape, kind, traced, **more)
    return rows


@pytest.fixture(scope="module")
def every_kernel():
    shapes = {path: shape for path, (shape, _) in ALL.items()}
    model = lambda key: {p: jnp.zeros(s) for p, s in shapes.items()}, call_all  # noqa: E731
    rows = read_rows(jaxinit.structure(model, jnp.zeros((2, 7, 5))))
    return rows, draw(shapes, 0), draw(shapes, 1)


def test_dimension_numbers_of_every_kernel(every_kernel):
    rows, params, _ = every_kernel
    assert muon_dimensions(rows)(params) == {
        path: dims for path, (_, dims) in ALL.items()
    }


def test_muon_updates_each_matrix_alone(every_kernel):
    """Beside optax's Muon of one matrix at a time."""
    rows, params, grads = every_kernel
    made, _ = train(_transforms.muon(rows, 1.0), params, [grads])
    single = optax.contrib.muon(1.0)

    def split(path, tree):
        _, dims = ALL[path]
        w, (ins, outs) = tree[path], dims
        batch = [a for a in range(w.ndim) if a not in (*ins, *outs)]
        w = w.transpose(*batch, *ins, *outs)
        outputs = np.prod([tree[path].shape[a] for a in outs])
        count = np.prod([tree[path].shape[a] for a in batch], dtype=int)
        return {
            f"{path} {n}": each for n, each in enumerate(w.reshape(count, -1, outputs))
        }

    def split_all(tree):
        paths = [path for path, (_, dims) in ALL.items() if dims]
        return {k: w for path in paths for k, w in split(path, tree).items()}

    wanted, _ = train(single, split_all(params), [split_all(grads)])
    assert len(wanted) == 22
    assert_near(split_all(made), wanted, 1e-4)
    adam, _ = train(optax.adamw(1.0, weight_decay=0.0), params, [grads])
    assert_near(made, {path: adam[path] for path, (_, dims) in ALL.items() if not dims})


# meshes, loops, frameworks


@pytest.mark.parametrize(
    "build", [_transforms.adamw, _transforms.sgd, _transforms.lion]
)
def test_sharded_parameters(build):
    mesh = jax.make_mesh((8,), ("model",))
    rows = {"w": make_row("w", (16, 6), "hidden", **FACTORS["up"]), "b": ROWS["gain"]}
    rows["b"] = make_row("b", (8,), "vector", **FACTORS["gain"])
    shapes = {"w": (16, 6), "b": (8,)}
    params, grads = draw(shapes, 0), [draw(shapes, 1), draw(shapes, 2)]
    place = NamedSharding(mesh, PartitionSpec("model"))
    tx = build(rows, 0.1, weight_decay=0.2)
    wanted, _ = train(tx, params, grads)
    made, _ = train(tx, *jax.device_put((params, grads), place))
    assert {leaf.sharding for leaf in made.values()} == {place}
    assert_same(jax.device_get(made), jax.device_get(wanted))


def test_shards_within_shard_map():
    mesh = jax.make_mesh((8,), ("model",))
    rows = {"w": make_row("w", (16, 6), "hidden", **FACTORS["up"])}
    tx, spec = _transforms.adamw(rows, 0.1), PartitionSpec("model")

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=spec, out_specs=spec)
    def step(params, grads):
        updates, _ = tx.update(grads, tx.init(params), params)
        return optax.apply_updates(params, updates)

    params, grads = draw({"w": (16, 6)}, 0), draw({"w": (16, 6)}, 1)
    wanted, _ = train(tx, params, [grads])
    assert_near(step(params, grads), wanted, 1e-6)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Dense(6, name="down")(nn.relu(nn.Dense(12, name="up")(x))), None


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        x, _ = nn.scan(Block, length=3, **axes)(name="layers")(nn.Dense(6)(x), None)
        return nn.Dense(2, name="out")(x)


def test_layers_of_a_scan_in_linen():
    x = jnp.ones((4, 5))
    variables = Stack().init(KEY, x)
    rows = read_rows(jaxinit.structure(Stack(), x), lr={"adam": 0.25}, decay=4.0)
    for params in (variables, variables["params"]):
        tx = _transforms.adamw(rows, 0.1, weight_decay=0.5)
        made, _ = train(tx, params, [params, params])
        inner = made.get("params", made)["layers"]["up"]
        kernel = {"w": variables["params"]["layers"]["up"]["kernel"]}
        own = {"w": make_row("w", kernel["w"].shape, "", lr={"adam": 0.25}, decay=4.0)}
        wanted, _ = train(
            _transforms.adamw(own, 0.1, weight_decay=0.5), kernel, [kernel, kernel]
        )
        np.testing.assert_array_equal(inner["kernel"], wanted["w"])
    dims = muon_dimensions(rows)(variables)["params"]
    assert dims["layers"]["down"] == {"bias": None, "kernel": Dims((1,), (2,))}


class Perceptron(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)]
        )
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.out(x)


def test_optimizer_of_nnx():
    x = jnp.ones((4, 5))
    rows = read_rows(
        jaxinit.structure(Perceptron, x), lr={"adam": 0.5, "muon": 0.5}, decay=2.0
    )
    for build in (_transforms.adamw, _transforms.muon):
        moved = {}
        for name, each in (("ours", rows), ("ones", read_rows_of_ones(rows))):
            model = Perceptron(nnx.Rngs(0))
            before = nnx.state(model, nnx.Param)
            before = jax.tree.map(jnp.copy, before)
            optimizer = nnx.Optimizer(model, build(each, 0.1), wrt=nnx.Param)
            grads = nnx.grad(lambda model: (model(x) ** 2).mean())(model)
            optimizer.update(model, grads)
            after = nnx.state(model, nnx.Param)
            moved[name] = jax.tree.map(jnp.subtract, after, before)
        ours, ones = moved["ours"], moved["ones"]
        kernel = ones["layers"][1]["kernel"][...]
        assert_near({"w": ours["layers"][1]["kernel"][...]}, {"w": 0.5 * kernel}, 1e-3)
        assert_near(
            {"w": ours["out"]["kernel"][...]}, {"w": ones["out"]["kernel"][...]}
        )


def read_rows_of_ones(rows):
    return {p: dataclasses.replace(row, lr={}, decay=1.0) for p, row in rows.items()}


def test_modules_of_equinox():
    model = eqx.nn.MLP(5, 2, 6, 2, use_final_bias=False, key=KEY)
    structure = jaxinit.structure(model, jnp.ones((4, 5)))
    rows = read_rows(structure, lr={"adam": 0.5, "muon": 0.5}, decay=2.0)
    params = eqx.filter(model, eqx.is_array)
    grads = eqx.filter_grad(lambda model: (model(jnp.ones(5)) ** 2).sum())(model)
    for build in (_transforms.adamw, _transforms.muon):
        tx, plain = build(rows, 0.1), build(read_rows_of_ones(rows), 0.1)
        ours, _ = tx.update(grads, tx.init(params), params)
        ones, _ = plain.update(grads, plain.init(params), params)
        eqx.apply_updates(model, ours)
        middle = ours.layers[1].weight, ones.layers[1].weight
        np.testing.assert_allclose(middle[0], 0.5 * middle[1], rtol=1e-3, atol=1e-7)
        np.testing.assert_array_equal(ours.layers[2].weight, ones.layers[2].weight)


# messages


def without(path):
    return {each: leaf for each, leaf in PARAMS.items() if each != path}


@pytest.mark.parametrize(
    ("build", "params", "message"),
    [
        (
            _transforms.adamw,
            {**PARAMS, "more": jnp.ones(3)},
            r"Scale\.adamw\(params=\.\.\.\): each parameter must be one of the "
            r"target's, and more is not\. Paths are such as table, in, up\. Leave what",
        ),
        (
            _transforms.sgd,
            without("up"),
            r"Scale\.sgd\(params=\.\.\.\): the parameters must be all of the target's, "
            r"and up is missing\. Hide what is not trained by optax\.masked",
        ),
        (
            _transforms.lion,
            {**PARAMS, "up": jnp.ones((3, 6))},
            r"Scale\.lion\(params=\.\.\.\): the parameters must be those of the target,"
            r" and up has sizes \(3, 6\) instead of \(6, 12\)\. Give those of",
        ),
        (_transforms.muon, without("in"), r"Scale\.muon\(params=\.\.\.\): the param"),
    ],
)
def test_trees_of_other_models(build, params, message):
    tx = build(ROWS, 0.1)
    with pytest.raises(ValueError, match=message):
        tx.init(params)
    with pytest.raises(ValueError, match=message):
        tx.update(params, tx.init(PARAMS), params)


def test_wrong_arguments(monkeypatch):
    with pytest.raises(
        ValueError, match=r"Scale\.lr\(optimizer='adm'\): optimizer must .* 'adam'\?"
    ):
        _transforms.lr(ROWS, "adm")
    with pytest.raises(
        TypeError, match=r"Scale\.muon\(independent=1\): independent must be True or"
    ):
        _transforms.muon(ROWS, 0.1, independent=1)
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"Scale\.adamw\(\): needs optax\. Run"
    ):
        _transforms.adamw(ROWS, 0.1)
