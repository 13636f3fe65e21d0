"""The other methods of `calibrate`: by unit, by rate, by theory, by branch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinit as ji

pytestmark = pytest.mark.usefixtures("quick_compiler")

KEY = jax.random.key(0)
X = 3 * jax.random.normal(jax.random.key(1), (64, 16)) + 1


def chain(activation, depth, width=32, **settings):
    layers = [
        f for _ in range(depth) for f in (nn.Dense(width, **settings), activation)
    ]
    return nn.Sequential(layers)


def calibrate(model, x, **more):
    return ji.calibrate(model, x, key=KEY, **more)


@pytest.mark.parametrize(("method", "mean"), [("weight_norm", 0), ("within", 0.1)])
def test_units_are_standardized(method, mean):
    """Exactly, on the data; and the next layer sees what came out."""
    model = chain(nn.tanh, 4)
    params, report = calibrate(model, X, method=method)
    assert report.rounds == 1 and not report.left
    _, kept = model.apply(params, X, capture_intermediates=True)
    for number in range(4):
        output = kept["intermediates"][f"layers_{2 * number}"]["__call__"][0]
        np.testing.assert_allclose(output.mean(0), mean, atol=2e-6)
        np.testing.assert_allclose(output.std(0), 1, atol=2e-6)
    again, second = calibrate(model, X, method=method, params=params)
    assert second.rounds == 0
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_units_by_the_formula():
    """g = 1 / d and b = -m / d, with m and d those of the product with the weight."""
    drawn = {"kernel": jax.random.normal(KEY, (16, 8)), "bias": jnp.ones(8)}
    model = (lambda key: drawn), lambda params, x: x @ params["kernel"] + params["bias"]
    params, _ = calibrate(model, X, method="weight_norm")
    product = np.asarray(X, np.float64) @ np.asarray(drawn["kernel"], np.float64)
    kernel = drawn["kernel"] / product.std(0)
    np.testing.assert_allclose(params["kernel"], kernel, rtol=1e-5)
    bias = -product.mean(0) / product.std(0)
    np.testing.assert_allclose(params["bias"], bias, rtol=1e-4, atol=1e-6)


def test_without_a_bias_the_mean_stays():
    model = (lambda key: {"w": ji.normal(1.0)(key, (16, 8))}), lambda p, x: x @ p["w"]
    _, report = calibrate(model, X, method="weight_norm")
    (left,) = report.left
    np.testing.assert_allclose(left.after, 1, atol=1e-5)
    assert left.reason == "keeps its mean: it has no bias of its own"


@pytest.mark.slow
def test_weight_normalization_goes_by_its_scale():
    """The direction stays; the scale of flax.linen.WeightNorm is what changes."""

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.tanh(nn.WeightNorm(nn.Dense(16))(x))
            return nn.WeightNorm(nn.Dense(3))(x)

    drawn = Model().init(KEY, X)
    params, report = calibrate(Model(), X, method="weight_norm", params=drawn)
    output = Model().apply(params, X)
    np.testing.assert_allclose(output.mean(0), 0, atol=2e-6)
    np.testing.assert_allclose(output.std(0), 1, atol=2e-6)
    for name in ("Dense_0", "Dense_1"):
        before, after = (p["params"][name]["kernel"] for p in (drawn, params))
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_a_standardized_kernel_has_no_scale():
    """What divides a weight by its own size hides its scale."""

    def init(key):
        return {"w": ji.normal(3.0)(key, (16, 8)), "v": ji.normal(3.0)(key, (8, 4))}

    def apply(params, x):
        w = params["w"]
        return jnp.tanh(x @ ((w - w.mean(0)) / w.std(0))) @ params["v"]

    params, report = calibrate((init, apply), X)
    (left,) = report.left
    assert left.path == "w" and "no multiple of a parameter" in left.reason
    assert report.layers[1].after == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_weights_made_of_several():
    """Kernels side by side are one multiple of all; a low-rank product is none."""

    def init(key):
        one, two = jax.random.split(key)
        parts = {name: ji.normal(1.0)(one, (16, 8)) for name in "ab"}
        low = {"l": ji.normal(1.0)(one, (16, 2)), "r": ji.normal(1.0)(two, (2, 4))}
        return {**parts, **low, "w": ji.normal(1.0)(two, (16, 4))}

    def apply(params, x):
        joined = jnp.concatenate([params["a"], params["b"]], 1)
        return jnp.tanh(x @ joined) @ (params["w"] + params["l"] @ params["r"])

    params, report = calibrate((init, apply), X)
    assert report.layers[0].after == pytest.approx(1, abs=1e-3)
    first = params["a"] / params["b"]
    np.testing.assert_allclose(first, 1, rtol=1e-6)  # both by one factor
    (left,) = report.left
    assert left is report.layers[1]


def test_rates_become_equal():
    """At once with relu, where the function stays; biases go with their layer."""
    bias = nn.initializers.normal(0.5)
    model = chain(nn.relu, 5, bias_init=bias)
    drawn = model.init(KEY, X)
    worse = jax.tree.map(lambda leaf: leaf, drawn)
    worse["params"]["layers_4"]["kernel"] *= 7.0
    params, report = calibrate(model, X, method="between", params=worse)
    assert report.rounds == 1 and not report.left
    rates = np.array([layer.rates for layer in report.layers])
    assert np.ptp(np.log(rates[:, 0])) > 1 and np.ptp(np.log(rates[:, 1])) < 0.02
    before, after = (model.apply(p, X) for p in (worse, params))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)
    scales = [float(layer.scale) for layer in report.layers]
    assert np.prod(scales) == pytest.approx(1, rel=1e-4)


@pytest.mark.slow
def test_a_rate_is_that_of_the_gradient():
    """Computed apart, from the outputs' gradient weighted by normal numbers."""
    model = chain(nn.tanh, 2)
    _, report = calibrate(model, X, method="between")
    drawn = [float(layer.rates[0]) for layer in report.layers]

    variables = model.init(KEY, X)  # other weights, of the same law
    normal = jax.random.normal(jax.random.key(7), (64, 32))
    slopes = jax.grad(lambda v: (normal * model.apply(v, X)).sum())(variables)
    for number, rate in enumerate(drawn):
        path = f"layers_{2 * number}"
        weight, slope = (t["params"][path]["kernel"] for t in (variables, slopes))
        expected = jnp.sqrt((slope**2).mean() / (weight**2).mean())
        assert rate == pytest.approx(float(expected), rel=0.3)


class Branches(nn.Module):
    """Norms before the branches, or behind them; then perhaps with weights omega."""

    post: bool = False
    omega: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(32)(x)
        for number in range(3):
            y = x if self.post else nn.LayerNorm()(x)
            y = 2 * nn.Dense(32)(nn.gelu(nn.Dense(64)(y)))
            if self.omega:
                x = x * self.param(f"omega_{number}", nn.initializers.ones, (32,))
            x = nn.LayerNorm()(x + y) if self.post else x + y
        return nn.Dense(4)(x)


@pytest.mark.slow
def test_rates_in_branches():
    """Each branch has a mean of its own, and adds what it added before."""
    _, report = calibrate(Branches(), X, method="between")
    assert report.rounds <= 3 and not report.left
    rows = report.layers[1:-1]
    for inner, outer in zip(rows[::2], rows[1::2], strict=True):
        assert inner.rates[1] == pytest.approx(outer.rates[1], rel=0.02)
        assert outer.after == pytest.approx(outer.before, rel=0.1)


def test_theory():
    """Scales from the activation, norms and sums, without a pass over the data."""

    def init(key):
        return [ji.normal(1.0)(key, (16, 128)), ji.normal(1.0)(key, (128, 128))]

    def apply(params, x):
        return jnp.tanh(x @ params[0]) @ params[1]

    params, report = calibrate((init, apply), X, method="autoinit")
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    square = (weights * np.tanh(nodes) ** 2).sum() / weights.sum()
    sums = 16 * (X**2).mean(), 128 * square
    for kernel, second_moment in zip(params, sums, strict=True):
        expected = float(1 / second_moment)
        assert float((kernel**2).mean()) == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose([x.after for x in report.layers], 1, atol=0.15)


@pytest.mark.slow
def test_theory_of_norms_and_sums():
    params, report = calibrate(Branches(), X, method="autoinit")
    assert not report.left
    inner, outer = (params["params"][f"Dense_{i}"]["kernel"] for i in (2, 1))
    assert float((inner**2).mean()) == pytest.approx(1 / 32, rel=0.01)
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    square = (weights * np.asarray(nn.gelu(nodes)) ** 2).sum() / weights.sum()
    assert float((outer**2).mean()) == pytest.approx(1 / (64 * square), rel=0.01)
    # The last sees the sum of four outputs of variance 1; the branches are doubled.
    last = params["params"]["Dense_7"]["kernel"]
    expected = 1 / (32 * (1 + 3 * 4))
    assert float((last**2).mean()) == pytest.approx(expected, rel=0.02)

    def pool(x):
        return nn.Dense(4)(nn.max_pool(x[..., None], (2,))[..., 0])

    class Pooled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return pool(nn.Dense(16)(x))

    _, report = calibrate(Pooled(), X, method="autoinit")
    (left,) = report.left
    assert left.reason == "stays as it is: no theory tells the size of its inputs"


@pytest.mark.slow
def test_branches_before_norms():
    """What bypasses branch i weighs sqrt(1 + sum of the variances before it)."""
    drawn = Branches(post=True).init(KEY, X)
    params, report = calibrate(Branches(post=True), X, method="admin", params=drawn)
    ends = [x for x in report.layers if x.role == "residual"]
    variances = [(2 * float(x.before)) ** 2 for x in ends]
    omegas = np.sqrt(1 + np.cumsum([0, *variances])[:-1])
    np.testing.assert_allclose([1 / x.scale for x in ends], omegas, rtol=1e-4)
    with_omega = Branches(post=True, omega=True)
    more = {f"omega_{i}": jnp.ones(32) for i in range(3)}
    given = {"params": {**drawn["params"], **more}}
    weighted, _ = calibrate(with_omega, X, method="admin", params=given)
    found = [weighted["params"][f"omega_{i}"] for i in range(3)]
    np.testing.assert_allclose(found, np.tile(omegas[:, None], 32), rtol=1e-4)
    outputs = Branches(post=True).apply(params, X), with_omega.apply(weighted, X)
    np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="Dense_1/kernel ends one of another kind"):
        calibrate(Branches(), X, method="admin")
