"""Which parameter stands for which, what grows, and what is refused."""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import (
    IDS,
    IMAGES,
    STEPS,
    EquinoxBlock,
    LinenBlock,
    Lstm,
    Perceptron,
    ResNet,
    Scanned,
    StateSpace,
    X,
    make_equinox,
    make_nnx,
    make_nnx_block,
    transformer,
)

import jaxinit
from jaxinit import scaling
from jaxinit.scaling._muon import is_matrix

TABLE = {
    "block, linen": (LinenBlock, STEPS),
    "block, nnx": (make_nnx_block, STEPS),
    "block, equinox": (lambda d: lambda key: EquinoxBlock(d, key), STEPS),
    "perceptron": (Perceptron, X),
    "nnx": (make_nnx, X),
    "equinox": (make_equinox, X),
    "transformer": (transformer, IDS),
    "scanned": (Scanned, X),
    "resnet": (ResNet, IMAGES),
    "lstm": (Lstm, STEPS),
    "state space": (StateSpace, STEPS),
}


@functools.cache
def read(name, *sizes, **options):
    make, x = TABLE[name]
    with jax.numpy_dtype_promotion("standard"):
        return jaxinit.structure(make(*sizes, **options), x)


def compare(base, target, how=scaling.mup, **options):
    return how(base, target, **options)


def numbers(row):
    return row.std, row.lr["sgd"], row.lr["adam"], row.lr["muon"], row.eps, row.decay


# In effect, fourfold wide, as muP's table 3 has them.
INPUT = (1, 4, 1, 2, 1 / 4, 1)
VECTOR = (1, 4, 1, 1, 1 / 4, 1)
HIDDEN = (1 / 2, 1, 1 / 4, 1, 1 / 4, 4)
READOUT = (1 / 4, 1 / 4, 1 / 4, 1 / 4, 1, 4)
SAME = (1,) * 6


def test_one_table_in_every_framework():
    tables = []
    for name in ("perceptron", "nnx", "equinox"):
        scale = compare(read(name, 8, 2), read(name, 32, 4))
        tables.append(Counter((row.kind, *numbers(row)) for row in scale.values()))
    assert tables[0] == tables[1] == tables[2]
    assert tables[0] == {
        ("input", *INPUT): 1,
        ("hidden", *HIDDEN): 4,
        ("readout", *READOUT): 1,
        ("vector", *VECTOR): 5,
        ("vector", *SAME): 1,
    }


@pytest.mark.slow
def test_one_table_of_a_block_in_every_framework():
    tables = []
    for name in ("linen", "nnx", "equinox"):
        scale = compare(*(read(f"block, {name}", d) for d in (8, 32)))
        each = Counter(
            (row.traced.role, row.kind, *numbers(row)) for row in scale.values()
        )
        tables.append(each)
    assert tables[0] == tables[1] == tables[2]
    query = ("query", "hidden", *times(HIDDEN, 0.5))
    assert tables[0][query] == 1 and tables[0]["key", "hidden", *HIDDEN] == 1


def test_layers_are_paired_in_proportion():
    scale = compare(read("perceptron", 8, 2), read("perceptron", 32, 5))
    pairs = {path[6]: row.base[6] for path, row in scale.items()}
    assert pairs == dict(zip("0123456", "0111223", strict=True))
    assert scale["Dense_1/kernel"].grown == {
        "width in": 4,
        "width out": 4,
        "layers": 2.5,
    }
    assert scale["Dense_0/kernel"].grown == {"width out": 4}
    back = compare(read("perceptron", 32, 5), read("perceptron", 8, 2))
    assert back["Dense_2/kernel"].base == "Dense_3/kernel"
    assert back["Dense_2/kernel"].lr["adam"] == 4 and back["Dense_2/kernel"].std == 2


def test_blocks_are_paired_whole():
    scale = compare(read("transformer", blocks=2), read("transformer", 4, blocks=4))
    for path, row in scale.items():
        if path.startswith("block_"):
            block, rest = path[6:].split("/", 1)
            assert row.base == f"block_{int(block) // 2}/{rest}"
            assert row.depth == row.grown["layers"] == 2 and row.in_block
        else:
            assert row.base == path and "layers" not in row.grown and not row.in_block


def test_the_table_of_a_transformer():
    scale = compare(read("transformer"), read("transformer", 4))
    expected = {
        "table/embedding": VECTOR,
        "places": VECTOR,
        "head/kernel": READOUT,
        "last/scale": VECTOR,
        "block_0/attend/q/kernel": HIDDEN,
        "block_0/attend/v/bias": VECTOR,
        "block_0/attend/o/kernel": HIDDEN,
        "block_0/Dense_1/kernel": HIDDEN,
        "block_0/down/kernel": HIDDEN,
        "block_0/RMSNorm_0/scale": VECTOR,
    }
    assert {path: numbers(scale[path]) for path in expected} == expected
    assert scale["block_0/attend/k/kernel"].grown["heads"] == 4
    assert not scale.forward


def times(row, theta):
    """Returns the numbers of a row that has absorbed a factor."""
    std, sgd, adam, muon, eps, decay = row
    return tuple(
        np.multiply(
            (std, sgd, adam, muon, eps, decay),
            (theta, theta**2, theta, theta, 1 / theta, 1 / theta),
        )
    )


@pytest.mark.parametrize(
    ("options", "carriers"),
    [
        ({}, ("attend/q/kernel", "attend/q/bias")),
        ({"normed": True}, ("attend/norm_q/scale",)),
        pytest.param({"flat": True}, ("attend/q/kernel",), marks=pytest.mark.slow),
        pytest.param({"shared": 2}, ("attend/q/kernel",), marks=pytest.mark.slow),
    ],
)
def test_heads_that_grow_in_size(options, carriers):
    """The query's kernel and bias absorb sqrt(1/4), or the gain of its norm."""
    options = {"grows": "size", **options}
    scale = compare(read("transformer", **options), read("transformer", 4, **options))
    row = scale[f"block_0/{carriers[0]}"]
    for carrier in carriers:
        plain = HIDDEN if "kernel" in carrier else VECTOR
        assert numbers(scale[f"block_0/{carrier}"]) == times(plain, 0.5)
    assert numbers(scale["block_0/attend/k/kernel"]) == HIDDEN
    if "normed" in options:
        assert numbers(scale["block_0/attend/q/kernel"]) == HIDDEN
    left = compare(*(scale._base, read("transformer", 4, **options)), attention="size")
    assert numbers(left["block_0/attend/q/kernel"]) == HIDDEN
    model = compare(scale._base, read("transformer", 4, **options), attention="nothing")
    assert numbers(model[f"block_0/{carriers[0]}"])[0] == numbers(row)[0] / 2


def call_joint(p, x):
    q, k, v = jnp.split(x @ p["qkv"], 3, -1)
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / jnp.sqrt(1.0 * q.shape[-1]))
    return (x + (weights @ v) @ p["out"]) @ p["head"]


def make_joint(n):
    sizes = {"qkv": (n, 3 * n), "out": (n, n), "head": (n, 3)}
    return lambda key: {name: jnp.zeros(x) for name, x in sizes.items()}, call_joint


@functools.cache
def read_joint(n):
    return jaxinit.structure(make_joint(n), np.zeros((2, 5, n), np.float32))


def test_what_no_parameter_of_queries_can_absorb():
    small, large = read_joint(8), read_joint(32)
    scale = scaling.mup(small, large)
    assert dict(scale.forward) == {"qkv": 0.5}
    assert str(scale.forward).startswith("# attention: qkv\nscores = scores * 0.5")
    assert numbers(scale["qkv"]) == HIDDEN
    assert any("No parameter belongs to the queries of qkv" in x for x in scale.notes)


def test_experts_and_their_router():
    for experts in (3, 12):
        scale = compare(
            read("transformer", experts=3), read("transformer", 4, experts=experts)
        )
        router = scale["block_0/experts/router/kernel"]
        assert (router.kind, router.width_in, router.width_out) == ("readout", 4, 1)
        assert numbers(router) == READOUT
        assert numbers(scale["block_0/experts/up"]) == HIDDEN
        grown = scale["block_0/experts/down"].grown
        assert grown.get("experts", 1) == experts / 3


def mix(name):
    """Returns a model that mixes four shifted copies of each channel."""

    def apply(p, x):
        h = jnp.tanh(x @ p["a"])
        copies = [jnp.pad(h, ((0, 0), (i, 0), (0, 0)))[:, : h.shape[1]] for i in (0, 1)]
        h, w = jnp.stack(copies, 2), p["w"]
        if name == "blkc,kc->blc, by a sum":
            h = (h * w).sum(2)
        elif name == "blc,kc->blkc":
            h = jnp.einsum(name, copies[0], w).sum(2)
        elif name == "blc,kc->blc":
            h = jnp.einsum(name, copies[0], w)
        else:
            h = jnp.einsum(name, h, w.T if ",ck" in name else w)
        return jnp.tanh(h @ p["b"]) @ p["c"]

    def make(n):
        sizes = {"a": (6, n), "w": (2, n), "b": (n, n), "c": (n, 5)}
        return lambda key: {k: jnp.ones(size) for k, size in sizes.items()}, apply

    return make


SPELLINGS = ["blkc,kc->blc", "blkc,ck->blc", "blkc,kc->blc, by a sum"]
SPELLINGS += ["blc,kc->blkc", "blc,kc->blc"]


def test_a_kernel_for_each_channel_is_no_expert():
    """However the program spells it: what it mixes with stays hidden, and Muon's."""
    for name in SPELLINGS:
        small, large = (jaxinit.structure(mix(name)(n), STEPS) for n in (8, 32))
        scale = scaling.mup(small, large)
        mixer = scale["w"]
        assert (mixer.kind == "vector") == (name == "blc,kc->blc"), name
        assert dict(mixer.grown) == {"width out": 4}, name
        assert numbers(mixer) == VECTOR, name  # by Adam: each channel is its own
        assert numbers(scale["b"]) == HIDDEN, name
        assert dict(scale["b"].grown) == {"width in": 4, "width out": 4}, name
        assert numbers(scale["a"]) == INPUT and numbers(scale["c"]) == READOUT, name


def call_apart(p, x):
    """Latent attention: a product of contents, one of positions, and their sum."""
    x = x @ p["stem"]
    q, k = x @ p["q_down"], x @ p["k_down"]
    contents = [jnp.einsum("blc,chk->blhk", y, p[n]) for y, n in ((q, "q"), (k, "k"))]
    turned, turns = jnp.einsum("blc,chk->blhk", q, p["q_turned"]), x @ p["k_turned"]
    scores = jnp.einsum("bqhk,bshk->bhqs", *contents)
    scores += jnp.einsum("bqhk,bsk->bhqs", turned, turns)
    scores /= (contents[0].shape[-1] + turned.shape[-1]) ** 0.5
    v = jnp.einsum("blc,chk->blhk", k, p["v"])
    y = jnp.einsum("bhqs,bshk->bqhk", jax.nn.softmax(scores), v)
    return (x + jnp.einsum("bqhk,hkd->bqd", y, p["o"])) @ p["head"]


def make_apart(n, latent, size, heads=2):
    up = (latent, heads, size)
    sizes = {"stem": (6, n), "q_down": (n, latent), "k_down": (n, latent), "q": up}
    sizes |= {"k": up, "v": up, "q_turned": (latent, heads, size // 2)}
    sizes |= {"k_turned": (n, size // 2), "o": (heads, size, n), "head": (n, 5)}
    return lambda key: {k: jnp.ones(size) for k, size in sizes.items()}, call_apart


@functools.cache
def read_apart(*sizes):
    return jaxinit.structure(make_apart(*sizes), STEPS)


def test_queries_of_two_kernels_and_two_products():
    """Both kernels of queries absorb the factor of heads that grow, once."""
    small, large = read_apart(8, 4, 4), read_apart(32, 16, 16)
    assert {path: large[path].role for path in ("q", "q_turned")} == {
        "q": "query",
        "q_turned": "query",
    }
    assert large["k"].role == large["k_turned"].role == "key"
    assert large["v"].role == "value" and large["q"].head == 16 + 8
    scale = scaling.mup(small, large)
    halved = {path for path, row in scale.items() if row.absorbed != 1}
    assert halved == {"q", "q_turned"} and not scale.forward and not scale.notes
    for path, row in scale.items():
        if path not in ("stem", "head"):
            assert numbers(row) == times(HIDDEN, 0.5 if path in halved else 1), path


def at_latent(m):
    return read_apart(8 * m, 4, 4)


def test_muon_has_the_same_parameters_at_every_width():
    """Of experts with a router, and of latent features that do not grow."""
    models = {
        "experts": lambda m: read("transformer", m, experts=3),
        "latent": at_latent,
        "channels": lambda m: jaxinit.structure(mix("blkc,kc->blc")(8 * m), STEPS),
    }
    for name, at in models.items():
        scales = [scaling.mup(at(1), at(m)) for m in (1, 4)]
        one, four = ({p for p, r in s.items() if is_matrix(r)} for s in scales)
        assert one == four, name
        assert {"latent": "q_down" in one, "channels": "w" not in one}.get(name, True)
        assert not any("router" in path for path in one)
        assert {numbers(row) for row in scales[0].values()} == {(1,) * 6}
    down = scaling.mup(at_latent(1), at_latent(4))["q_down"]  # sqrt(1/4), from many
    assert (down.kind, down.lr["muon"], down.lr["adam"]) == ("readout", 0.5, 0.25)


def test_queries_that_share_keys():
    """Keys are hidden, though there may be as many as in the base."""
    few = read("transformer", shared=2)
    scale = compare(few, read("transformer", 4, shared=8))
    key = scale["block_0/attend/k/kernel"]
    assert (key.kind, key.width_in, key.width_out) == ("hidden", 4, 1)
    assert (key.std, key.lr["adam"], key.lr["sgd"]) == (0.5, 0.25, 0.25)


@pytest.mark.parametrize("behind", [False, True])
def test_the_end_of_a_branch_absorbs_its_factor(behind):
    """It is the product that writes the stream, or the gain of a norm behind it."""
    small, large = (
        read("transformer", m, blocks=blocks, behind=behind)
        for m, blocks in ((1, 1), (4, 4))
    )
    for how, branch, step in (
        (scaling.completep, 1 / 4, 1),
        (scaling.depth_mup, 1 / 2, 1 / 2),
    ):
        scale = how(small, large)
        hidden, vector = (
            (std, sgd * step / branch, adam * step, muon * step, eps * branch, decay)
            for std, sgd, adam, muon, eps, decay in (HIDDEN, VECTOR)
        )
        ends = ["RMSNorm_1/scale", "RMSNorm_3/scale"]
        ends = ends if behind else ["down/bias", "attend/o/bias"]
        for end in ends:
            assert numbers(scale[f"block_3/{end}"]) == times(vector, branch)
        down = times(hidden, branch) if not behind else hidden
        assert numbers(scale["block_3/down/kernel"]) == down
        assert numbers(scale["block_3/attend/q/kernel"]) == hidden
        assert numbers(scale["table/embedding"]) == VECTOR
        model = how(small, large, forward="model")
        assert model["block_3/down/kernel"].forward == (1 if behind else branch)
        assert model.forward["head/kernel"] == 1 / 4


def test_layers_in_a_loop():
    scale = compare(read("scanned", 8, 2), read("scanned", 32, 8), scaling.completep)
    row = scale["stack/down/kernel"]
    assert row.grown == {"layers": 4, "width in": 4, "width out": 4}
    assert (row.std, row.lr["adam"], row.depth) == (1 / 8, 1 / 16, 4)


def test_a_resnet_with_stages():
    scale = compare(read("resnet", 8, (2, 2)), read("resnet", 32, (3, 4)))
    assert {row.base for row in scale.values() if "stage_1_2/" in row.path} == {
        path for path in scale._base if path.startswith("stage_1_1/")
    }
    assert scale["stage_1_0/skip/kernel"].base == "stage_1_0/skip/kernel"
    assert numbers(scale["stage_1_3/one/kernel"]) == HIDDEN
    assert numbers(scale["stem/kernel"]) == INPUT
    assert numbers(scale["head/kernel"]) == READOUT


def test_recurrent_models():
    scale = compare(read("lstm", 8), read("lstm", 32))
    assert numbers(scale["LSTMCell_0/hg/kernel"]) == HIDDEN
    assert numbers(scale["LSTMCell_0/ig/kernel"]) == INPUT
    assert numbers(scale["LSTMCell_0/hi/bias"]) == VECTOR
    scale = compare(read("state space", 8), read("state space", 32))
    assert numbers(scale["rate"]) == VECTOR and scale["rate"].kind == "vector"
    assert numbers(scale["read"]) == VECTOR  # a kernel for each channel
    assert numbers(scale["out/kernel"]) == HIDDEN


def test_data_are_no_width():
    small = read("perceptron", 8, 1)
    large = read("perceptron", 8, 1, classes=8)
    scale = compare(small, large)
    assert all(numbers(row) == SAME for row in scale.values())
    assert scale["Dense_2/bias"].grown == {"classes": 2}
    assert "The classes of Dense_2/bias grow 2-fold" in " ".join(scale.notes)


# ---------------------------------------------------------------------------- refused


def give(n, wide, **more):
    """Returns the structure of a perceptron of two hidden widths."""
    sizes = {"a": (6, n), "b": (n, wide), "c": (wide, 3), **more}

    def apply(p, x):
        h = jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"])
        for name in more:
            h = h + p[name].sum()
        return h @ p["c"]

    return jaxinit.structure(
        (lambda key: {name: jnp.zeros(x) for name, x in sizes.items()}, apply), X
    )


def tie():
    return (read("transformer", tied=True), read("transformer", 4, tied=True))


REFUSED = [
    (
        lambda: scaling.mup(give(8, 8), give(16, 64)),
        r"scaling.mup\(target=...\): all widths must grow alike, and the inputs of b "
        "grow 2-fold, those of c 8-fold. Grow them alike, or use scaling.spectral",
    ),
    (
        lambda: scaling.standard(give(8, 8), give(8, 8, d=(8,))),
        r"scaling.standard\(target=...\): each parameter must have its like in both "
        "models, and d, whose role is .*, has it in the target alone",
    ),
    (
        lambda: scaling.mup(give(8, 8, d=(8,)), give(8, 8)),
        "and d, whose role is .*, has it in the base alone",
    ),
    (
        lambda: scaling.mup(give(8, 8, d=(8,)), give(8, 8, d=(8, 1))),
        r"as many axes in both models, and d has sizes \(8, 1\), where d has \(8,\)",
    ),
    (
        lambda: scaling.completep(read("perceptron", 8, 1), read("perceptron", 8, 3)),
        r"scaling.completep\(target=...\): depth must grow by residual branches, and "
        "Dense_1/bias is one of 3 times as many layers outside of any",
    ),
    (
        lambda: scaling.mup(*tie()),
        r"scaling.mup\(forward='absorbed'\): a factor of the readout alone cannot be "
        "absorbed .* table/embedding is both embedding and readout. Say "
        "forward='model', and multiply the logits by 0.25",
    ),
    (
        lambda: scaling.standard(*tie()),
        "must have one standard deviation and one learning rate, and table/embedding",
    ),
    (lambda: scaling.mup(*tie(), form=9, forward="model"), "which differ in them"),
    (lambda: scaling.mup(Perceptron(8), Perceptron(8)), "needs example inputs behind"),
    (
        lambda: scaling.mup(give(8, 8), give(8, 8), X),
        "both models are read already. Leave inputs",
    ),
    (
        lambda: scaling.mup(Perceptron(8), Perceptron(8), X, argument={}),
        r"scaling.mup\(argument=\{\}\): there is no such argument. Did you mean 'arg",
    ),
    (lambda: scaling.mup(1, 2, X, form=4), r"mup\(form=4\): form must be one of 3, 8"),
    (
        lambda: scaling.ntk(1, 2, X, alignment="ful"),
        r"scaling.ntk\(alignment='ful'\): .* Did you mean 'full'",
    ),
    (
        lambda: scaling.u_mup(1, 2, X, forward="absorb"),
        r"scaling.u_mup\(forward='absorb'\): forward must be one of",
    ),
    (
        lambda: scaling.mup(1, 2, X, attention="sqrt"),
        r"attention must be one of 'root', 'size', 'nothing'",
    ),
    (
        lambda: scaling.completep(1, 2, X, alpha=2),
        r"scaling.completep\(alpha=2.0\): alpha must be from 0.5 to 1",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refusals(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_a_window_that_grows():
    def make(size):
        init = lambda key: {"w": jnp.zeros((size, 3, 4))}  # noqa: E731
        dims = ("NWC", "WIO", "NWC")
        apply = lambda p, x: jax.lax.conv_general_dilated(  # noqa: E731
            x, p["w"], (1,), "SAME", dimension_numbers=dims
        )
        return jaxinit.structure((init, apply), np.zeros((2, 9, 3), np.float32))

    with pytest.raises(ValueError, match=r"windows must be as large .*w has sizes \(5"):
        scaling.mup(make(3), make(5))


def test_a_tied_table_that_the_model_multiplies():
    scale = scaling.mup(*tie(), forward="model")
    row = scale["table/embedding"]
    assert (row.kind, row.forward, *numbers(row)) == ("embedding", 1 / 4, *VECTOR)
    assert dict(scale.forward) == {"table/embedding": 1 / 4}
    assert scaling.mean_field(*tie(), forward="model")["table/embedding"].std == 1


def make_bent(blocks, bend):
    """Returns a stream to which what a function makes of products is added."""

    def apply(p, x):
        x = x @ p["first"]
        for i in range(blocks):
            x = x + bend(x @ p[f"w_{i}"])
        return x @ p["last"]

    sizes = {"first": (6, 8), "last": (8, 3)}
    sizes |= {f"w_{i}": (8, 8) for i in range(blocks)}
    init = lambda key: {name: jnp.zeros(x) for name, x in sizes.items()}  # noqa: E731
    return jaxinit.structure((init, apply), X)


def normalize(x):
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True))


@pytest.mark.parametrize("bend", [jax.nn.relu, jnp.tanh, normalize])
def test_branches_that_end_in_a_function(bend):
    """A relu passes a factor on; tanh and a norm without gain do not."""
    scale = scaling.completep(make_bent(1, bend), make_bent(2, bend))
    if bend is jax.nn.relu:
        assert (scale["w_1"].std, dict(scale.forward)) == (0.5, {})
        return
    assert scale["w_1"].std == 1 and dict(scale.forward) == {"w_0": 0.5, "w_1": 0.5}
    assert str(scale.forward) == "# branch: w_0–1\nx = x + branch(x) * 0.5"
    assert "No parameter ends the branch of w_0 alone" in str(scale)


def rms(x):
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


ENDS = {  # what a branch makes of its normalized input y, and what absorbs its factor
    "product": (lambda p, y: jnp.tanh(y @ p["v"]) @ p["w"], {"w"}),
    "relu": (lambda p, y: jax.nn.relu(y @ p["w"]), {"w"}),
    "leaky relu": (lambda p, y: jax.nn.leaky_relu(y @ p["w"]), {"w"}),
    "gain": (lambda p, y: rms(y @ p["w"]) * p["g"], {"g"}),
    "gain of 1 + g": (lambda p, y: rms(y @ p["w"]) * (1 + p["g"]), set()),
    "unit weight": (lambda p, y: y @ (p["w"] / jnp.linalg.norm(p["w"])), set()),
    "sum, bent": (lambda p, y: jnp.tanh(y @ p["w"] + jnp.sin(y) @ p["v"]), set()),
    "square": (lambda p, y: (y @ p["w"]) ** 2, set()),
    "softmax": (lambda p, y: jax.nn.softmax(y @ p["w"]), set()),
    "bent gain": (lambda p, y: jax.nn.swish(rms(y @ p["w"]) * p["g"]), set()),
    "two gains": (
        lambda p, y: rms(y @ p["w"]) * p["g"] + rms(y @ p["v"]) * p["h"],
        set(),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_only_what_is_in_proportion_absorbs_a_factor(name):
    branch, ends = ENDS[name]

    def net(width, depth):
        def init(key):
            square, row = jnp.ones((width, width)), jnp.ones(width)
            block = {"w": square, "v": square, "g": row, "h": row}
            blocks = {f"block_{i}": block for i in range(depth)}
            return {
                "table": jnp.ones((9, width)),
                "out": jnp.ones((width, 9)),
                **blocks,
            }

        def apply(params, tokens):
            x = params["table"][tokens]
            for i in range(depth):
                x = x + branch(params[f"block_{i}"], rms(x))
            return x @ params["out"]

        return init, apply

    tokens = jnp.zeros((2, 3), int)
    scale = scaling.completep(net(8, 1), net(8, 4), tokens)
    absorbs = {row.path for row in scale.values() if row.absorbed != 1}
    assert absorbs == {f"block_{i}/{end}" for i in range(4) for end in ends}
    assert bool(scale.forward) == bool(scale.notes) == (not ends)
