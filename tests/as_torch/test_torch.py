"""torch: the laws of its initializers and layers, its refusals, and both layouts.

Where torch is missing, the comparisons with it are skipped and the rest runs.
"""

import inspect
import itertools
import math
import pickle
import re
import warnings
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from marks import slow_but
from scipy import stats

import jaxinit as ji
import jaxinit.torch as jt

KEY = jax.random.key(17)
LEVEL = 1e-4  # of every Kolmogorov-Smirnov test: one false alarm in 10 000
LAYOUTS = ("jax", "torch")
layouts = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def torch():
    """Imports torch, whose warnings are not ours, on one thread and seeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("torch", reason="compares with torch")
    module.set_num_threads(1)  # many slow down small tensors
    module.manual_seed(0)
    return module


class Fill(NamedTuple):
    """A function of torch.nn.init without underscore, its arguments, a torch shape."""

    name: str
    kwargs: dict[str, Any]
    shape: tuple[int, ...]

    def __str__(self):
        named = ", ".join(f"{k}={v}" for k, v in self.kwargs.items())
        return f"{self.name}({named}){list(self.shape)}"

    @property
    def layouts(self):
        """The layouts that the builder knows, or one where there is no difference."""
        builder = getattr(jt, self.name)
        known = "layout" in inspect.signature(builder).parameters
        return LAYOUTS if known else ("jax",)

    def ours(self, layout):
        """Returns our initializer, and the shape in its layout."""
        builder = getattr(jt, self.name)
        if self.layouts != LAYOUTS:
            return builder(**self.kwargs), self.shape
        if layout == "torch":
            return builder(**self.kwargs, layout="torch"), self.shape
        transposed = self.name == "conv_transpose"
        channels = self.shape[:2] if transposed else self.shape[1::-1]
        return builder(**self.kwargs), (*self.shape[2:], *channels)

    def drawn(self, layout):
        init, shape = self.ours(layout)
        return np.asarray(init(KEY, shape))

    def theirs(self, torch):
        """Returns what torch fills a tensor with."""
        fill = getattr(torch.nn.init, f"{self.name}_")
        return fill(torch.empty(self.shape), **self.kwargs).numpy()


def fills(rows):
    return pytest.mark.parametrize("fill", rows, ids=str)


def arranged(rows):
    """Runs a test on each fill and layout, with what follows a fill in its row."""
    cases = [
        pytest.param(fill, layout, *rest, id=f"{fill}-{layout}")
        for fill, *rest in rows
        for layout in fill.layouts
    ]
    names = ["fill", "layout", "message"]
    return pytest.mark.parametrize(names[: len(cases[0].values)], cases)


FLAT, DENSE, KERNEL, LINE = (150_000,), (500, 300), (200, 80, 3, 3), (250, 150, 4)
LAWS = [
    Fill("uniform", {}, FLAT),
    Fill("uniform", {"a": -1.0, "b": 3.0}, FLAT),
    Fill("normal", {}, FLAT),
    Fill("normal", {"mean": 2.0, "std": 0.5}, FLAT),
    Fill("trunc_normal", {}, FLAT),
    Fill("trunc_normal", {"std": 0.02}, FLAT),  # nothing is cut
    Fill("trunc_normal", {"mean": 1.0, "std": 2.0, "a": -0.5, "b": 4.0}, FLAT),
    Fill("trunc_normal", {"a": -math.inf, "b": 0.5}, FLAT),
    Fill("trunc_normal", {"a": 1.5, "b": 4.0}, FLAT),  # torch's way for small masses
    Fill("xavier_uniform", {}, DENSE),
    Fill("xavier_uniform", {"gain": 1.7}, KERNEL),
    Fill("xavier_normal", {}, LINE),
    Fill("xavier_normal", {"gain": 0.3}, DENSE),
    Fill("kaiming_uniform", {}, DENSE),
    Fill("kaiming_uniform", {"a": math.sqrt(5), "mode": "fan_out"}, KERNEL),
    Fill("kaiming_uniform", {"a": 0.7, "nonlinearity": "tanh"}, LINE),
    Fill("kaiming_normal", {}, DENSE),
    Fill("kaiming_normal", {"a": 1, "mode": "fan_out"}, LINE),
    Fill("kaiming_normal", {"nonlinearity": "selu"}, KERNEL),
]


def assert_same_law(ours, theirs):
    """Asserts one law: by distance of distributions, and within 5 standard errors."""
    ours, theirs = (np.ravel(x).astype(np.float64) for x in (ours, theirs))
    assert stats.ks_2samp(ours, theirs, method="asymp").pvalue > LEVEL
    share = 1 / ours.size + 1 / theirs.size
    variance, fourth = (stats.moment(theirs, order) for order in (2, 4))
    assert abs(ours.mean() - theirs.mean()) <= 5 * math.sqrt(variance * share)
    error = math.sqrt((fourth - variance**2) * share)
    assert abs(ours.var() - variance) <= 5 * error


@arranged([[fill] for fill in LAWS])
def test_laws_of_functions(torch, fill, layout):
    assert_same_law(fill.drawn(layout), fill.theirs(torch))


@pytest.mark.parametrize("spoil", [lambda x: 1.03 * x, lambda x: x + 0.03, np.abs])
def test_same_law_can_fail(spoil):
    one, other = np.random.default_rng(0).normal(size=(2, *FLAT))
    assert_same_law(one, other)
    with pytest.raises(AssertionError):
        assert_same_law(spoil(one), other)


def test_same_law_sees_five_percent_in_twenty_thousand_entries():
    for law in (stats.norm(), stats.uniform(-1, 2)):
        one, other = law.rvs((2, 20_000), random_state=0)
        with pytest.raises(AssertionError):
            assert_same_law(1.05 * one, other)


class Layer(NamedTuple):
    """A layer of torch.nn, its arguments, and the law of each of its parameters."""

    name: str
    args: tuple[int, ...]
    kwargs: dict[str, Any]
    laws: dict[str, tuple[str, dict[str, Any]]]

    def __str__(self):
        named = (f"{k}={v}" for k, v in self.kwargs.items())
        return f"{self.name}({', '.join([*map(str, self.args), *named])})"

    def build(self, torch):
        """Returns the parameters by name."""
        layer = getattr(torch.nn, self.name)(*self.args, **self.kwargs)
        return {k: v.detach().numpy() for k, v in layer.named_parameters()}


def with_bias(kernel, fan_in):
    return {"weight": (kernel, {}), "bias": ("bias", {"fan_in": fan_in})}


WIDTH, EMBED = 20_000, 256  # as many biases
EVEN, ZEROS = with_bias("conv", 8), ("zeros", {})
LAYERS = [
    Layer("Linear", (8, WIDTH), {}, with_bias("linear", 8)),
    Layer("Conv1d", (4, WIDTH, 2), {}, EVEN),
    Layer("Conv2d", (2, WIDTH, 2), {}, EVEN),
    Layer("Conv2d", (8, WIDTH, 2), {"groups": 4}, EVEN),
    Layer("Conv2d", (WIDTH, WIDTH, (4, 2)), {"groups": WIDTH}, EVEN),  # depthwise
    Layer("Conv3d", (1, WIDTH, 2), {}, EVEN),
    Layer(
        "ConvTranspose2d",
        (2, WIDTH, 2),
        {},
        with_bias("conv_transpose", 4 * WIDTH),
    ),
    Layer(
        "ConvTranspose2d",
        (8, WIDTH, 2),
        {"groups": 4},
        with_bias("conv_transpose", WIDTH),
    ),
    Layer(
        "Bilinear",
        (8, 3, WIDTH),
        {},
        {"weight": ("bias", {"fan_in": 8}), "bias": ("bias", {"fan_in": 8})},
    ),
    Layer("Embedding", (2000, 64), {}, {"weight": ("embedding", {})}),
    Layer("EmbeddingBag", (2000, 64), {}, {"weight": ("embedding", {})}),
    Layer(
        "MultiheadAttention",
        (EMBED, 4),
        {},
        {
            "in_proj_weight": ("attention", {"packed": True}),
            "in_proj_bias": ZEROS,
            "out_proj.weight": ("linear", {}),
            "out_proj.bias": ZEROS,
        },
    ),
    Layer(
        "MultiheadAttention",
        (EMBED, 4),
        {"kdim": 96, "vdim": 160},
        {
            "q_proj_weight": ("xavier_uniform", {}),
            "k_proj_weight": ("xavier_uniform", {}),
            "v_proj_weight": ("xavier_uniform", {}),
            "in_proj_bias": ZEROS,
            "out_proj.weight": ("linear", {}),
            "out_proj.bias": ZEROS,
        },
    ),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_laws_of_layers(torch, layer):
    weights = layer.build(torch)
    assert set(weights) == set(layer.laws)
    for parameter, (name, kwargs) in layer.laws.items():
        theirs = weights[parameter]
        fill = Fill(name, kwargs, theirs.shape)
        for layout in fill.layouts:
            assert_same_law(fill.drawn(layout), theirs)


def test_law_of_each_projection_of_packed_attention(torch):
    packed = LAYERS[-2].build(torch)["in_proj_weight"]
    for layout in LAYOUTS:
        ours = Fill("attention", {}, (EMBED, EMBED)).drawn(layout)
        for theirs in np.split(packed, 3):
            assert_same_law(ours, theirs)


def pooled(torch, layer, count):
    """Returns the entries of many such layers, by kind of parameter."""
    pools = {}
    for _ in range(count):
        for name, weight in layer.build(torch).items():
            kind = "_".join(name.split("_")[:2])  # of every layer and direction
            pools.setdefault(kind, []).append(weight.ravel())
    return {kind: np.concatenate(pool) for kind, pool in pools.items()}


def test_law_of_biases_of_attention(torch):
    layer = Layer("MultiheadAttention", (32, 1), {"add_bias_kv": True}, {})
    theirs = pooled(torch, layer, 1000)
    keys = jax.random.split(KEY, 1000)
    for layout in LAYOUTS:
        init, shape = Fill("xavier_normal", {}, (1, 1, 32)).ours(layout)
        ours = jax.vmap(lambda key, init=init, shape=shape: init(key, shape))(keys)
        assert_same_law(ours, theirs["bias_k"])
        assert_same_law(ours, theirs["bias_v"])


DEEP = {"num_layers": 2, "bidirectional": True}
RECURRENT = [
    Layer("RNN", (8, 16), DEEP, {}),
    Layer("LSTM", (8, 16), DEEP | {"proj_size": 4}, {}),
    Layer("GRU", (8, 16), DEEP, {}),
    Layer("RNNCell", (8, 16), {}, {}),
    Layer("LSTMCell", (8, 16), {}, {}),
    Layer("GRUCell", (8, 16), {}, {}),
]


@pytest.mark.parametrize("layer", RECURRENT, ids=str)
def test_laws_of_recurrent_layers(torch, layer):
    ours = jt.rnn(16)(KEY, FLAT)
    pools = pooled(torch, layer, WIDTH // 16)
    assert {"weight_ih", "weight_hh", "bias_ih", "bias_hh"} <= set(pools)
    for theirs in pools.values():
        assert theirs.size >= WIDTH
        assert_same_law(ours, theirs[:1_000_000])


@pytest.mark.parametrize("row", [0, 7, -1, -20])
def test_padding_of_embeddings(torch, row):
    layer = Layer("Embedding", (20, 8), {"padding_idx": row}, {})
    theirs = layer.build(torch)["weight"]
    ours = Fill("embedding", {"padding_idx": row}, (20, 8)).drawn("jax")
    np.testing.assert_array_equal(ours == 0, theirs == 0)


WINDOWS = [(1,), (2,), (3,), (4,), (2, 3), (4, 5), (3, 3, 2), (2, 2, 2)]
CHANNELS = [  # groups, outputs, inputs of a group
    *[(1, 4, 4), (1, 3, 5), (1, 5, 3)],
    *[(2, 6, 3), (3, 6, 4), (4, 4, 1), (2, 8, 2)],
]
EXACT = [
    Fill("constant", {"val": -0.3}, (3, 4)),
    Fill("zeros", {}, (5,)),
    Fill("ones", {}, (5, 2, 3)),
    Fill("ones", {}, ()),
    Fill("eye", {}, (4, 4)),
    Fill("eye", {}, (3, 5)),
    Fill("eye", {}, (5, 3)),
    Fill("normal", {"mean": 2.0, "std": 0.0}, (5,)),
    Fill("xavier_uniform", {"gain": 0.0}, (3, 5)),
    Fill("sparse", {"sparsity": 1.0}, (3, 5)),
    *(
        Fill("dirac", {"groups": groups}, (outputs, inputs, *window))
        for window, (groups, outputs, inputs) in itertools.product(WINDOWS, CHANNELS)
    ),
]


# Of dirac every fifth, which meets all of eight windows and seven kinds of channels.
FIXED = {"few": EXACT[:10] + EXACT[10::5], "all": EXACT}


@pytest.mark.parametrize("exact", slow_but(["few"], FIXED))
@layouts
def test_fixed_weights_are_torchs(torch, layout, exact):
    pairs = [fill.ours(layout) for fill in FIXED[exact]]
    weights = jax.jit(lambda key: [init(key, shape) for init, shape in pairs])(KEY)
    for fill, ours in zip(FIXED[exact], weights, strict=True):
        theirs = fill.theirs(torch)
        if fill.layouts == LAYOUTS and layout == "jax":
            theirs = np.moveaxis(theirs, (0, 1), (-1, -2))
        np.testing.assert_array_equal(ours, theirs, err_msg=str(fill))


@layouts
@pytest.mark.parametrize("outputs", [3, 6])
def test_orthogonal_is_torchs(torch, outputs, layout):
    """Wide and tall matrices: their products, entries, and a statistic of signs."""
    fill = Fill("orthogonal", {"gain": 1.5}, (outputs, 2, 2))
    theirs = np.stack([fill.theirs(torch) for _ in range(3000)])
    init, shape = fill.ours(layout)
    ours = jax.vmap(lambda key: init(key, shape))(jax.random.split(KEY, 3000))
    ours = np.asarray(ours)
    if layout == "jax":
        ours = np.moveaxis(ours, (-1, -2), (1, 2))
    ours, theirs = (x.reshape(-1, outputs, 4) for x in (ours, theirs))
    for q in (ours, theirs):
        gram = q @ q.mT if outputs < 4 else q.mT @ q
        assert abs(gram - 1.5**2 * np.eye(min(outputs, 4))).max() < 1e-5
    for i, j in [(0, 0), (2, 3), (1, 2)]:
        assert_same_law(ours[:, i, j], theirs[:, i, j])
    signed = [q[:, 0, 0] + 2 * q[:, 1, 1] * q[:, 2, 0] for q in (ours, theirs)]
    assert_same_law(*signed)


@layouts
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.75])
def test_sparse_is_torchs(torch, sparsity, layout):
    """As many zeros in each column, anywhere in it, and one law of the others."""
    fill = Fill("sparse", {"sparsity": sparsity, "std": 0.2}, (93, 500))
    theirs, ours = fill.theirs(torch), fill.drawn(layout)
    ours = ours.T if layout == "jax" else ours
    zeros = (ours == 0).sum(axis=0)
    np.testing.assert_array_equal(zeros, (theirs == 0).sum(axis=0))
    share = zeros[0] / 93
    spread = math.sqrt(share * (1 - share) / 500)
    assert abs((ours == 0).mean(axis=1) - share).max() <= 5 * spread
    assert_same_law(ours[ours != 0], theirs[theirs != 0])


def names(torch):
    """Returns the public functions of torch.nn.init that fill a tensor."""
    found = [name for name in dir(torch.nn.init) if name.endswith("_")]
    return [name[:-1] for name in found if not name.startswith("_")]


def test_every_function_has_a_builder_of_its_arguments(torch):
    assert len(names(torch)) >= 14
    for name in names(torch):
        theirs = inspect.signature(getattr(torch.nn.init, f"{name}_")).parameters
        ours = dict(inspect.signature(getattr(jt, name)).parameters)
        expected = [
            (p.name, p.default, p.kind)
            for p in theirs.values()
            if p.name not in ("tensor", "generator")
        ]
        layout = ours.pop("layout", None)
        if layout is not None:
            assert (layout.kind, layout.default) == (layout.KEYWORD_ONLY, "jax")
        assert ours.pop("dtype").default is None
        assert [(p.name, p.default, p.kind) for p in ours.values()] == expected


def test_every_function_is_compared(torch):
    compared = {fill.name for fill in LAWS + EXACT} | {"orthogonal"}
    assert set(names(torch)) <= compared


CONVOLUTIONS = [f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)]
TABLE = ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu", *CONVOLUTIONS]


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("param", [None, 0, 0.01, 0.2, 1, math.sqrt(5), -3.0])
def test_gain_is_torchs(torch, name, param):
    theirs = torch.nn.init.calculate_gain(name, param)
    assert jt.calculate_gain(name, param) == theirs
    if param is None:
        assert jt.calculate_gain(name) == torch.nn.init.calculate_gain(name)


@pytest.mark.parametrize("name", ["gelu", "silu", "elu"])
def test_gains_beyond_torchs_table(torch, name):
    with pytest.raises(ValueError, match="Unsupported nonlinearity"):
        torch.nn.init.calculate_gain(name)
    assert jt.calculate_gain(name) == ji.gain(name) > 1


# A misuse, torch's exception, our message.
Refusal = tuple[Fill, type[Exception], str]
PAIR = (4, 4)
ARGUMENTS: list[Refusal] = [
    (
        Fill("uniform", {"a": 2.0, "b": 1.0}, PAIR),
        RuntimeError,
        r"^torch\.uniform\(a=2\.0\): a must be below b, 1\.",
    ),
    (
        Fill("normal", {"std": -1.0}, PAIR),
        RuntimeError,
        r"^torch\.normal\(std=-1\.0\): std must be 0 or above\.",
    ),
    (
        Fill("trunc_normal", {"std": 0.0}, PAIR),
        ZeroDivisionError,
        r"^torch\.trunc_normal\(std=0\.0\): std must be above 0\.",
    ),
    (
        Fill("trunc_normal", {"a": 2.0, "b": 1.0}, PAIR),
        RuntimeError,
        r"^torch\.trunc_normal\(a=2\.0\): a must be below b, 1\.",
    ),
    (
        Fill("constant", {"val": "a"}, PAIR),
        TypeError,
        "must be a number or a regular array of numbers",
    ),
    (Fill("xavier_uniform", {"gain": -1.0}, PAIR), RuntimeError, "gain must be 0 or"),
    (Fill("xavier_normal", {"gain": -1.0}, PAIR), RuntimeError, "gain must be 0 or"),
    (
        Fill("kaiming_uniform", {"mode": "fan_inn"}, PAIR),
        ValueError,
        r"^torch\.kaiming_uniform\(mode='fan_inn'\): mode must be one of 'fan_in', "
        r"'fan_out'\. Did you mean 'fan_in'",
    ),
    (
        Fill("kaiming_normal", {"mode": "fan_avg"}, PAIR),
        ValueError,
        r"^torch\.kaiming_normal\(mode='fan_avg'\): mode must be one of",
    ),
    (
        Fill("kaiming_uniform", {"nonlinearity": "rellu"}, PAIR),
        ValueError,
        r"^torch\.kaiming_uniform\(nonlinearity='rellu'\): nonlinearity must be one of",
    ),
    (
        Fill("kaiming_normal", {"nonlinearity": "Tanh"}, PAIR),
        ValueError,
        "Did you mean 'tanh'",
    ),
    (
        Fill("kaiming_uniform", {"a": "0.1"}, PAIR),
        ValueError,
        r"^torch\.kaiming_uniform\(a='0\.1'\): a must be a real number",
    ),
    (Fill("kaiming_normal", {"a": True}, PAIR), ValueError, "a must be a real number"),
    (Fill("kaiming_normal", {"a": math.nan}, PAIR), RuntimeError, "a must be finite"),
    (
        Fill("dirac", {"groups": 0}, (4, 4, 3)),
        ZeroDivisionError,
        r"^torch\.dirac\(groups=0\): groups must be 1 or above",
    ),
    (Fill("dirac", {"groups": 2.0}, (4, 4, 3)), TypeError, "groups must be an integer"),
    (Fill("sparse", {"sparsity": "a"}, PAIR), TypeError, "sparsity must be a real"),
    (Fill("sparse", {}, PAIR), TypeError, "missing a required argument: 'sparsity'"),
    (Fill("sparse", {"sparsity": 0.5, "std": -1.0}, PAIR), RuntimeError, "std must be"),
]
VECTOR = "needs two axes"
SHAPES: list[Refusal] = [
    *(
        (Fill(f"{name}_{law}", {}, shape), ValueError, VECTOR)
        for name in ("xavier", "kaiming")
        for law in ("uniform", "normal")
        for shape in [(5,), ()]
    ),
    (Fill("orthogonal", {}, (5,)), ValueError, "needs two axes or more"),
    (Fill("eye", {}, (5,)), ValueError, "needs a shape of two axes"),
    (Fill("eye", {}, (3, 4, 5)), ValueError, "needs a shape of two axes"),
    (Fill("sparse", {"sparsity": 0.5}, (5,)), ValueError, "needs a shape of two axes"),
    (
        Fill("sparse", {"sparsity": 0.5}, (3, 4, 5)),
        ValueError,
        "needs a shape of two axes",
    ),
    (Fill("dirac", {}, (4, 5)), ValueError, "needs a kernel of 3, 4 or 5 axes"),
    (Fill("dirac", {}, (4,) * 6), ValueError, "needs a kernel of 3, 4 or 5 axes"),
    (
        Fill("dirac", {"groups": 3}, (4, 6, 3)),
        ValueError,
        "groups=3 do not divide the 4 outputs",
    ),
]
# What torch lets pass: a weight that is not of the law asked for, or of another
# spelling, or of a law that ours does not draw.
STRICTER: list[tuple[Fill, str]] = [
    (Fill("sparse", {"sparsity": 1.5}, PAIR), "sparsity must lie between 0 and 1"),
    (Fill("sparse", {"sparsity": -0.5}, PAIR), "sparsity must lie between 0 and 1"),
    (Fill("uniform", {"a": 1.0, "b": 1.0}, PAIR), "a must be below b, 1"),
    (Fill("trunc_normal", {"std": -1.0}, PAIR), "std must be above 0"),
    (Fill("trunc_normal", {"a": 1.0, "b": 1.0}, PAIR), "a must be below b, 1"),
    (
        Fill("trunc_normal", {"a": 60.0, "b": 70.0}, PAIR),
        "less than 1e-05 of a normal law",
    ),
    (Fill("dirac", {"groups": -2}, (4, 4, 3)), "groups must be 1 or above"),
    (Fill("orthogonal", {"gain": -1.0}, PAIR), "gain must be 0 or above"),
    (Fill("kaiming_normal", {"mode": "FAN_IN"}, PAIR), "mode must be one of 'fan_in'"),
]


def messages(refusals):
    return [(fill, message) for fill, _, message in refusals]


@arranged(messages(ARGUMENTS) + STRICTER)
def test_arguments_are_refused_by_builders(fill, layout, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fill.ours(layout)


@arranged(messages(SHAPES))
def test_shapes_are_refused_at_the_call(fill, layout, message):
    init, shape = fill.ours(layout)
    said = re.escape(f"shape={shape}): {message}")
    with pytest.raises(ValueError, match=rf"^torch\.{fill.name}\(.*, {said}"):
        init(KEY, shape)
    with pytest.raises(ValueError, match=rf"^torch\.{fill.name}\(.*moments\({said}"):
        init.moments(shape)


@pytest.mark.parametrize(
    ("fill", "error"),
    [(fill, error) for fill, error, _ in ARGUMENTS + SHAPES],
    ids=lambda x: str(x) if isinstance(x, Fill) else x.__name__,
)
def test_torch_refuses_the_same(torch, fill, error):
    with pytest.raises(error):
        fill.theirs(torch)


@fills([fill for fill, _ in STRICTER])
def test_torch_lets_pass(torch, fill):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a law that "may be incorrect"
        assert fill.theirs(torch).shape == fill.shape


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("rellu",), ValueError, r"^torch\.calculate_gain\(nonlinearity='rellu'\): "),
        ((None,), ValueError, "nonlinearity must be one of 'abs'"),
        (("leaky_relu", True), TypeError, "param must be a real number"),
        (("leaky_relu", "0.1"), TypeError, "param must be a real number"),
    ],
)
class TestRefusalsOfGain:
    def test_ours(self, args, error, message):
        with pytest.raises(error, match=message):
            jt.calculate_gain(*args)

    def test_torchs(self, torch, args, error, message):
        with pytest.raises(ValueError):
            torch.nn.init.calculate_gain(*args)


@pytest.mark.parametrize(
    ("fill", "message", "layer", "error"),
    [
        (
            Fill("rnn", {"hidden_size": 0}, (3,)),
            r"^torch\.rnn\(hidden_size=0\): hidden_size must be 1 or above",
            Layer("RNN", (3, 0), {}, {}),
            ValueError,
        ),
        (
            Fill("bias", {"fan_in": 0}, (3,)),
            r"^torch\.bias\(fan_in=0\): fan_in must be 1 or above",
            Layer("Bilinear", (0, 3, 3), {}, {}),
            ValueError,
        ),
        *(
            (
                Fill("embedding", {"padding_idx": row}, (3, 4)),
                rf"\(key, shape=\(3, 4\)\): has no row padding_idx={row}\.",
                Layer("Embedding", (3, 4), {"padding_idx": row}, {}),
                AssertionError,
            )
            for row in (3, -4)
        ),
    ],
    ids=lambda x: str(x) if isinstance(x, Fill) else "",
)
class TestRefusalsOfLayers:
    def test_ours(self, fill, message, layer, error):
        with pytest.raises(ValueError, match=message):
            fill.drawn("torch")

    def test_torchs(self, torch, fill, message, layer, error):
        with pytest.raises(error):
            layer.build(torch)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jt.bias(2.5), r"^torch\.bias\(fan_in=2\.5\): fan_in must be an int"),
        (lambda: jt.rnn("a"), "hidden_size must be an integer"),
        (lambda: jt.embedding(0.5), "padding_idx must be an integer"),
        (lambda: jt.attention(packed=1), "packed must be True or False"),
        (lambda: jt.uniform("a"), "a must be a real number"),
        (lambda: jt.normal("a"), "mean must be a real number"),
        (lambda: jt.trunc_normal(std="a"), "std must be a real number"),
        (lambda: jt.linear(KEY, (3, 4)), r"Write torch\.linear\(\.\.\.\)\(key, shape"),
    ],
)
def test_types_are_refused(build, message):
    with pytest.raises(TypeError, match=message):
        build()


ARRANGED = [
    Fill("xavier_uniform", {}, (7, 5)),
    Fill("xavier_normal", {"gain": "relu"}, (7, 5, 3)),
    Fill("kaiming_uniform", {"a": 0.1, "mode": "fan_out"}, (7, 5, 3, 2)),
    Fill("kaiming_normal", {"nonlinearity": "gelu"}, (7, 5, 3, 2, 4)),
    Fill("orthogonal", {"gain": 2.0}, (7, 5, 3)),
    Fill("sparse", {"sparsity": 0.3, "std": 0.5}, (7, 5)),
    Fill("dirac", {"groups": 3}, (6, 5, 2, 3)),
    Fill("linear", {}, (7, 5)),
    Fill("conv", {}, (7, 5, 3, 2)),
    Fill("conv_transpose", {}, (7, 5, 3, 2)),
    Fill("attention", {}, (7, 5)),
    Fill("attention", {"packed": True}, (21, 5)),
]
PLAIN = [
    Fill("uniform", {"b": 0.5}, (7, 5)),
    Fill("normal", {"std": 0.1}, (7, 5)),
    Fill("trunc_normal", {"a": -1.0}, (7, 5)),
    Fill("constant", {"val": 0.3}, (7, 5)),
    Fill("ones", {}, (7, 5)),
    Fill("zeros", {}, (7, 5)),
    Fill("eye", {}, (7, 5)),
    Fill("bias", {"fan_in": 9}, (7,)),
    Fill("rnn", {"hidden_size": 9}, (7, 5)),
    Fill("embedding", {"padding_idx": 2}, (7, 5)),
]


def test_every_builder_has_a_row():
    public = {name for name, value in vars(jt).items() if hasattr(value, "registered")}
    assert {fill.name for fill in ARRANGED + PLAIN} | {"lstm", "gru"} == public
    assert all(fill.layouts == LAYOUTS for fill in ARRANGED)
    assert not any(fill.layouts == LAYOUTS for fill in PLAIN)


@fills(ARRANGED)
def test_moments_are_those_of_the_other_layout(fill):
    (ours, ours_shape), (theirs, theirs_shape) = map(fill.ours, LAYOUTS)
    assert ours.moments(ours_shape) == theirs.moments(theirs_shape) is not None


@pytest.mark.parametrize("name", sorted({fill.name for fill in ARRANGED}))
def test_layouts_are_two(name):
    kwargs = {"sparsity": 0.5} if name == "sparse" else {}
    with pytest.raises(
        ValueError,
        match=r"\(layout='flax'\): layout must be one of 'jax', 'torch'",
    ):
        getattr(jt, name)(**kwargs, layout="flax")


@arranged([[Fill(n, {}, (5,))] for n in ("linear", "conv_transpose", "attention")])
def test_kernels_need_two_axes(fill, layout):
    init, shape = fill.ours(layout)
    with pytest.raises(ValueError, match=r"\(key, shape=\(5,\)\): needs two axes"):
        init(KEY, shape)
    with pytest.raises(ValueError, match=r"\.moments\(shape=\(5,\)\): needs two axes"):
        init.moments(shape)


def test_tables_need_two_axes():
    for shape in [(5,), (2, 3, 4)]:
        with pytest.raises(ValueError, match="needs a shape of two axes"):
            jt.embedding()(KEY, shape)
        with pytest.raises(ValueError, match="needs a shape of two axes"):
            jt.embedding().moments(shape)
    with pytest.raises(ValueError, match="has no row padding_idx=5"):
        jt.embedding(5).moments((5, 3))


@arranged([[fill] for fill in ARRANGED + PLAIN + LAWS])
def test_specs_and_pickles(fill, layout):
    init, _ = fill.ours(layout)
    assert repr(init).startswith("torch.")
    for copy in (ji.parse(repr(init)), pickle.loads(pickle.dumps(init))):
        assert copy == init and hash(copy) == hash(init)


def test_aliases_are_read():
    assert ji.parse("torch.conv(layout='torch')") == jt.linear(layout="torch")
    for name in ("lstm", "gru"):
        assert ji.parse(f"torch.{name}(hidden_size=4)") == jt.rnn(4)


@pytest.mark.slow
def test_narrow_weights_are_rounded_ones():
    @jax.jit
    def both(key):
        every = [fill.ours("torch") for fill in ARRANGED + PLAIN]
        dtypes = ("float32", "bfloat16")
        return [[init(key, shape, d) for d in dtypes] for init, shape in every]

    for fill, (wide, narrow) in zip(ARRANGED + PLAIN, both(KEY), strict=True):
        rounded = np.asarray(wide.astype("bfloat16"))
        np.testing.assert_array_equal(rounded, narrow, err_msg=str(fill))


class Net(nn.Module):
    """A layer of each kind, with torch's defaults."""

    @nn.compact
    def __call__(self, token):
        def conv(**rest):
            return nn.Conv(64, (3, 3), kernel_init=jt.conv(), **rest)

        x = nn.Embed(50, 32, embedding_init=jt.embedding(0), name="embed")(token)
        x = nn.Dense(64, kernel_init=jt.linear(), bias_init=jt.bias(32), name="dense")(
            x
        )
        x = nn.MultiHeadDotProductAttention(
            4, kernel_init=jt.attention(), out_kernel_init=jt.linear(), name="attention"
        )(x)
        x = x.reshape(1, 4, 4, 64)
        x = conv(bias_init=jt.bias(9 * 64), name="conv")(x)
        x = conv(feature_group_count=4, name="grouped")(x)
        return nn.ConvTranspose(
            16, (2, 2), kernel_init=jt.conv_transpose(), name="transposed"
        )(x)


def assert_bound(weight, bound):
    """Asserts uniform weights on (-bound, bound), by their largest."""
    largest = float(abs(weight).max())
    assert 1 - 20 / weight.size < largest / bound < 1 + 1e-6


@pytest.mark.slow
def test_layers_of_linen():
    params = jax.jit(Net().init)(KEY, jnp.arange(16).reshape(1, 16))["params"]
    assert bool((params["embed"]["embedding"][0] == 0).all())
    assert_bound(params["dense"]["kernel"], 1 / math.sqrt(32))
    assert_bound(params["dense"]["bias"], 1 / math.sqrt(32))
    for name in ("query", "key", "value"):
        assert_bound(params["attention"][name]["kernel"], math.sqrt(6 / (4 * 64)))
    assert_bound(params["attention"]["out"]["kernel"], 1 / math.sqrt(64))
    assert_bound(params["conv"]["kernel"], 1 / math.sqrt(9 * 64))
    assert_bound(params["conv"]["bias"], 1 / math.sqrt(9 * 64))
    assert_bound(params["grouped"]["kernel"], 1 / math.sqrt(9 * 16))
    assert_bound(params["transposed"]["kernel"], 1 / math.sqrt(4 * 16))


def test_layers_of_nnx():
    layer = nnx.Linear(
        32, 64, kernel_init=jt.linear(), bias_init=jt.bias(32), rngs=nnx.Rngs(0)
    )
    assert_bound(layer.kernel[...], 1 / math.sqrt(32))
    assert_bound(layer.bias[...], 1 / math.sqrt(32))
