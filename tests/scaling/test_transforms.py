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
from marks import slow_but
from optax.contrib import MuonDimensionNumbers as Dims

import jaxinit
from jaxinit._structure.result import TracedParameter
from jaxinit.scaling import ScaledParameter, _transforms
from jaxinit.scaling._muon import muon_dimensions
from jaxinit.scaling._vary import find_each

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
    """Draws by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)
    return {
        path: rng.normal(size=shape).astype(np.float32)
        for path, shape in shapes.items()
    }


SHAPES = {path: shape for path, (shape, _) in SIZES.items()}
PARAMS = draw(SHAPES, 0)
GRADS = [draw(SHAPES, step) for step in (1, 2, 3)]


def train(tx, params=PARAMS, grads=GRADS):
    """Returns what some steps make of parameters, and the last state: one program."""

    @jax.jit
    def run(params, grads):
        def step(carry, grad):
            params, state = carry
            updates, state = tx.update(grad, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), grads)[0]

    return run(params, jax.tree.map(lambda *each: np.stack(each), *grads))


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
        lambda rows: _transforms.muon(rows, RATE, ns_steps=2, weight_decay=0.1),
        lambda: optax.contrib.muon(
            RATE, ns_steps=2, weight_decay=0.1, muon_weight_dimension_numbers=DIMS
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


@pytest.mark.parametrize("name", slow_but(["adamw, all arguments"], LIKE_OPTAX))
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


def adamw_by_hand(path, rate, eps=1e-8, shrink=1e-4, grads=GRADS):
    """AdamW's steps; each takes η times shrink from a weight."""
    w, m, v = np.asarray(PARAMS[path], float), 0.0, 0.0
    for t, grad in enumerate(grads, 1):
        g = np.asarray(grad[path], float)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + eps)
        w = w - float(rate(t - 1)) * (rate_of(path, "adam") * u + shrink * w)
    return w


def adamw_of_all(rate, eps=1e-8, weight_decay=1e-4, independent=False, grads=GRADS):
    made = {}
    for path in ROWS:
        shrink = 1.0 if independent else rate_of(path, "adam") * decay_of(path)
        own = eps * FACTORS[path]["eps"], weight_decay * shrink
        made[path] = adamw_by_hand(path, rate, *own, grads)
    return made


def constant(count):
    return 0.1


@pytest.mark.parametrize("independent", slow_but([False], [False, True]))
def test_adamw_by_hand(independent):
    tx = _transforms.adamw(
        ROWS, RATE, eps=0.3, weight_decay=0.2, independent=independent
    )
    made, _ = train(tx)
    assert_near(made, adamw_of_all(RATE, 0.3, 0.2, independent))


def test_lr_is_one_part_of_a_chain():
    tx = optax.chain(
        optax.scale_by_adam(eps=0.3),
        _transforms.lr(ROWS),
        optax.add_decayed_weights(0.2),
        optax.scale_by_learning_rate(RATE),
    )
    made, _ = train(tx)
    assert_near(made, {p: adamw_by_hand(p, RATE, 0.3, 0.2) for p in ROWS})
    ones = jax.tree.map(np.ones_like, PARAMS)
    for optimizer in ("sgd", "muon"):
        made, _ = _transforms.lr(ROWS, optimizer).update(ones, optax.EmptyState())
        for path, row in ROWS.items():
            by_adam = optimizer == "muon" and row.kind not in ("input", "hidden")
            factor = rate_of(path, "adam" if by_adam else optimizer)
            np.testing.assert_array_equal(made[path], np.float32(factor))


def sgd_by_hand(path, rate, momentum=0.0, weight_decay=0.0):
    w, m = np.asarray(PARAMS[path], float), 0.0
    own, shrink = rate_of(path, "sgd"), rate_of(path, "adam") * decay_of(path)
    for t, grad in enumerate(GRADS):
        g = own * np.asarray(grad[path], float) + shrink * weight_decay * w
        m = momentum * m + g
        w = w - float(rate(t)) * m
    return w


def test_sgd_by_hand():
    made, _ = train(_transforms.sgd(ROWS, RATE, 0.9, weight_decay=0.2))
    assert_near(made, {path: sgd_by_hand(path, RATE, 0.9, 0.2) for path in ROWS})


@pytest.mark.parametrize("independent", slow_but([True], [True, False]))
def test_lion_by_hand(independent):
    tx = _transforms.lion(ROWS, RATE, weight_decay=0.2, independent=independent)
    made, _ = train(tx)
    for path in ROWS:
        w, m = np.asarray(PARAMS[path], float), 0.0
        own = rate_of(path, "adam")
        shrink = 1.0 if independent else own * decay_of(path)
        for t, grad in enumerate(GRADS):
            g = np.asarray(grad[path], float)
            u = own * np.sign(0.9 * m + 0.1 * g) + shrink * 0.2 * w
            w, m = w - float(RATE(t)) * u, 0.99 * m + 0.01 * g
        assert_near(made, {path: w})


def orthonormal(g, steps):
    """Newton-Schulz as Muon has it."""
    x = g.T if g.shape[0] > g.shape[1] else g
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if g.shape[0] > g.shape[1] else x


@pytest.mark.parametrize("rms", slow_but([None], [None, 0.2]))
def test_muon_by_hand_has_the_factor_of_the_bases_sizes(rms):
    grown = {"in": ((5, 3), (5, 6)), "up": ((3, 6), (6, 12)), "down": ((6, 3), (12, 6))}
    rows = dict(ROWS)
    for path, (base, _) in grown.items():
        traced = dataclasses.replace(rows[path].traced, shape=base)
        rows[path] = dataclasses.replace(rows[path], traced_base=traced)
    tx = _transforms.muon(
        rows, RATE, ns_steps=2, weight_decay=0.2, consistent_rms=rms, nesterov=False
    )
    made, _ = train(tx)
    for path, ((inputs, outputs), _) in grown.items():
        scale = max(1, outputs / inputs) ** 0.5
        scale = scale if rms is None else rms * max(inputs, outputs) ** 0.5
        w, m = np.asarray(PARAMS[path], float), 0.0
        for t, grad in enumerate(GRADS):
            m = 0.95 * m + 0.05 * np.asarray(grad[path], float)
            u = (
                rate_of(path, "muon")
                * scale
                * orthonormal(m / (1 - 0.95 ** (t + 1)), 2)
            )
            shrink = rate_of(path, "adam") * decay_of(path)
            w = w - float(RATE(t)) * (u + shrink * 0.2 * w)
        assert_near(made, {path: w}, 1e-4)
    by_adam = adamw_of_all(RATE, weight_decay=0.0)
    assert_near(made, {path: by_adam[path] for path in ("table", "gain", "out")})


# within optax


INJECTED = [_transforms.adamw, _transforms.sgd, _transforms.lion, _transforms.muon]


@pytest.mark.parametrize("build", slow_but(INJECTED[:1], INJECTED))
def test_hyperparameters_are_injected(build):
    static = ("ns_steps", "preconditioning") if build is _transforms.muon else ()
    inject = optax.inject_hyperparams(build, static)
    made, state = train(inject(ROWS, learning_rate=RATE, weight_decay=0.2))
    assert {"learning_rate", "weight_decay"} <= set(state.hyperparams)
    if build is _transforms.adamw:
        assert_near(made, adamw_of_all(RATE, weight_decay=0.2))
    else:
        assert_near(made, train(build(ROWS, RATE, weight_decay=0.2))[0], 1e-4)


def test_part_of_a_tree():
    """Each parameter is as if all were trained, wherever others are hidden."""
    whole = adamw_of_all(constant)
    labels = {path: "sgd" if path in ("gain", "in") else "adam" for path in ROWS}
    parts = {"adam": _transforms.adamw(ROWS, 0.1), "sgd": _transforms.sgd(ROWS, 0.1)}
    made, _ = train(optax.multi_transform(parts, labels))
    sgd = {path: sgd_by_hand(path, constant) for path in ("gain", "in")}
    assert_near(made, whole | sgd)
    none = {path: None if path == "gain" else leaf for path, leaf in PARAMS.items()}
    grads = [{**grad, "gain": None} for grad in GRADS]
    made, _ = train(_transforms.adamw(ROWS, 0.1), none, grads)
    assert made["gain"] is None
    assert_near(made, {path: whole[path] for path in ROWS if path != "gain"})


def test_what_is_hidden_may_be_a_whole_part():
    nested = {"params": {"deep": PARAMS, "value": {"value": PARAMS["in"]}}}
    rows = {f"deep/{path}": row for path, row in ROWS.items()}
    rows["value/value"] = ROWS["in"]
    for hide in ({"deep": True, "value": False}, {"deep": False, "value": True}):
        tx = optax.masked(_transforms.lr(rows), {"params": hide})
        made, _ = tx.update(nested, tx.init(nested))
        factor = 3.0 if hide["deep"] else 1.0
        wanted = factor * PARAMS["out"]
        np.testing.assert_array_equal(made["params"]["deep"]["out"], wanted)


def pick(tree):
    return {path: tree[path] for path in ("up", "down", "gain")}


FEW = pick(ROWS)


def test_gradients_that_are_none():
    """As those of what a function does not differentiate, in Equinox."""
    tx = _transforms.adamw(FEW, 0.1)
    params = pick(PARAMS)
    state = tx.init(params)
    step = jax.jit(tx.update)
    updates, after = step({**pick(GRADS[0]), "gain": None}, state, params)
    assert updates["gain"] is None and updates["up"].shape == (6, 12)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_steps_are_gathered_and_states_mapped():
    tx = optax.MultiSteps(_transforms.adamw(FEW, 0.1), 2)
    one, two = map(pick, GRADS[:2])
    made, _ = train(tx, pick(PARAMS), [one, one, two, two])
    assert_near(made, pick(adamw_of_all(constant, grads=GRADS[:2])))
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
    y = jnp.einsum("btef,efd->bted", y, p["down"])
    x = x + jnp.einsum("bted,bte->btd", y, weights)
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
    """Kernels are matrices by hand: of layers, of experts, from heads to features."""
    rows, params, grads = every_kernel
    kept = ("conv", "q", "o", "stack", "up", "down", "fused", "deep", "bias")
    params, grads = (
        {path: leaf if path in kept else None for path, leaf in tree.items()}
        for tree in (params, grads)
    )
    tx = _transforms.muon(rows, 1.0, ns_steps=1, nesterov=False)
    made, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    shapes = {"conv": (24, 8), "q": (8, 8), "o": (8, 8)}
    for path, shape in shapes.items():
        scale = max(1, shape[1] / shape[0]) ** 0.5
        wanted = -scale * orthonormal(np.asarray(grads[path]).reshape(shape), 1)
        assert_near({path: made[path].reshape(shape)}, {path: wanted})
    for path in ("stack", "up", "down"):
        for layer, grad in zip(made[path], np.asarray(grads[path]), strict=True):
            scale = max(1, grad.shape[1] / grad.shape[0]) ** 0.5
            assert_near({path: layer}, {path: -scale * orthonormal(grad, 1)})
    for part in range(3):
        wanted = -orthonormal(np.asarray(grads["fused"][:, part]).reshape(8, 8), 1)
        assert_near({"fused": made["fused"][:, part].reshape(8, 8)}, {"fused": wanted})
    for path in ("deep", "bias"):  # AdamW's first step
        assert_near({path: made[path]}, {path: -np.sign(grads[path])}, 1e-3)


# meshes, loops, frameworks


@pytest.mark.parametrize("build", slow_but(INJECTED[:1], INJECTED))
def test_sharded_parameters(build):
    mesh = jax.make_mesh((8,), ("model",), (jax.sharding.AxisType.Auto,))
    rows = {
        "w": make_row("w", (16, 6), "hidden", **FACTORS["up"]),
        "b": make_row("b", (8,), "vector", **FACTORS["gain"]),
    }
    shapes = {"w": (16, 6), "b": (8,)}
    params, grads = draw(shapes, 0), [draw(shapes, 1), draw(shapes, 2)]
    place = NamedSharding(mesh, PartitionSpec("model"))
    tx = build(rows, 0.1, weight_decay=0.2)
    wanted, _ = train(tx, params, grads)
    made, _ = train(tx, *jax.device_put((params, grads), place))
    assert all(w.sharding.is_equivalent_to(place, w.ndim) for w in made.values())
    assert_near(jax.device_get(made), wanted, 1e-4)


def test_shards_within_shard_map():
    mesh = jax.make_mesh((8,), ("model",), (jax.sharding.AxisType.Auto,))
    rows = {"w": make_row("w", (16, 6), "hidden", **FACTORS["up"])}
    tx, spec = _transforms.adamw(rows, 0.1), PartitionSpec("model")

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=spec, out_specs=spec)
    def step(params, grads):
        updates, _ = tx.update(grads, tx.init(params), params)
        return optax.apply_updates(params, updates)

    params, grads = draw({"w": (16, 6)}, 0), draw({"w": (16, 6)}, 1)
    wanted = -0.1 * 0.25 * (np.sign(grads["w"]) + 4.0 * 1e-4 * params["w"])
    assert_near(step(params, grads), {"w": params["w"] + wanted})


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


def first_step(grad, weight, rate, decay):
    """AdamW's first step: the sign of the gradient, and decay."""
    grad, weight = np.asarray(grad), np.asarray(weight)
    return -0.1 * rate * (np.sign(grad) + decay * 0.5 * weight)


def fill(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), shapes)


def test_layers_of_a_scan_in_linen():
    x = jnp.ones((4, 5))
    params = fill(jax.eval_shape(Stack().init, KEY, x))
    rows = read_rows(jaxinit.structure(Stack(), x), lr={"adam": 0.25}, decay=4.0)
    tx = _transforms.adamw(rows, 0.1, eps=0.0, weight_decay=0.5)
    made, _ = jax.jit(tx.update)(params, tx.init(params), params)
    for name, rate in (("layers", 0.25), ("out", 1.0)):
        trees = params["params"][name], made["params"][name]
        w, u = (t.get("up", t)["kernel"] for t in trees)
        assert_near({name: u}, {name: first_step(w, w, rate, 1 / rate)})
    for tree in (params, params["params"]):  # with the collection, and without
        dims = muon_dimensions(rows)(tree)
        down = dims.get("params", dims)["layers"]["down"]
        assert down == {"bias": None, "kernel": Dims((1,), (2,))}


class Perceptron(nnx.Module):
    def __init__(self, rngs):
        more = {"kernel_init": nnx.initializers.ones, "use_bias": False, "rngs": rngs}
        self.layers = nnx.List([nnx.Linear(5, 6, **more), nnx.Linear(6, 6, **more)])
        self.out = nnx.Linear(6, 2, **more)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.out(x)


def test_optimizer_of_nnx():
    x = jnp.ones((4, 5))
    rows = read_rows(jaxinit.structure(Perceptron, x), lr={"adam": 0.5}, decay=2.0)
    tx = _transforms.adamw(rows, 0.1, eps=0.0, weight_decay=0.5)
    model = Perceptron(nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    step = nnx.jit(lambda optimizer, model, grads: optimizer.update(model, grads))
    step(nnx.Optimizer(model, tx, wrt=nnx.Param), model, before)
    for path, rate in ((("layers", 1), 0.5), (("out",), 1.0)):
        old, new = before, nnx.state(model, nnx.Param)
        for key in (*path, "kernel"):
            old, new = old[key], new[key]
        wanted = first_step(old[...], old[...], rate, 1 / rate)
        assert_near({"w": new[...] - old[...]}, {"w": wanted})
    dims = muon_dimensions(rows)(before)
    assert dims["layers"][1]["kernel"] == Dims((0,), (1,))


def make_equinox(key=KEY):
    return eqx.nn.MLP(5, 2, 6, 2, use_final_bias=False, key=key)


def test_modules_of_equinox():
    structure = jaxinit.structure(make_equinox, jnp.ones((4, 5)))
    rows = read_rows(structure, lr={"adam": 0.5}, decay=2.0)
    shapes = eqx.filter_eval_shape(make_equinox)
    params = fill(eqx.filter(shapes, lambda leaf: hasattr(leaf, "shape")))
    tx = _transforms.adamw(rows, 0.1, eps=0.0, weight_decay=0.5)
    made, _ = jax.jit(tx.update)(params, tx.init(params), params)
    for layer, rate in ((1, 0.5), (2, 1.0)):
        w = params.layers[layer].weight
        assert_near(
            {"w": made.layers[layer].weight}, {"w": first_step(w, w, rate, 1 / rate)}
        )
    assert muon_dimensions(rows)(params).layers[1].weight == Dims((1,), (0,))


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["linen", "nnx", "equinox"])
def test_muon_of_frameworks(framework):
    x = jnp.ones((4, 5))
    model, params = {
        "linen": lambda: (Stack(), Stack().init(KEY, x)),
        "nnx": lambda: (Perceptron, nnx.state(Perceptron(nnx.Rngs(0)), nnx.Param)),
        "equinox": lambda: (make_equinox, eqx.filter(make_equinox(), eqx.is_array)),
    }[framework]()
    rows = read_rows(jaxinit.structure(model, x), lr={"adam": 0.5, "muon": 0.5})
    tx = _transforms.muon(rows, 0.1, ns_steps=1, nesterov=False)
    ones = {path: dataclasses.replace(row, lr={}) for path, row in rows.items()}
    plain = _transforms.muon(ones, 0.1, ns_steps=1, nesterov=False)
    ours, _ = tx.update(params, tx.init(params), params)
    theirs, _ = plain.update(params, plain.init(params), params)
    found = [row for row in find_each("Scale.muon", rows, ours) if row is not None]
    hidden = [row.kind == "hidden" for row in found]
    assert 0 < sum(hidden) < len(hidden)
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for half, (mine, other) in zip(hidden, pairs, strict=True):
        np.testing.assert_allclose(mine, other * (0.5 if half else 1), rtol=1e-5)


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
    if build is not _transforms.lion:  # whose momentum is of another shape
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


def test_a_whole_model_is_no_parameters():
    """One of Equinox has its activation among its leaves."""
    with pytest.raises(
        TypeError, match=r"Scale.adamw\(params=...\): .*and f is <.*eqx"
    ):
        _transforms.adamw(ROWS, RATE).init({**PARAMS, "f": jax.nn.relu})
