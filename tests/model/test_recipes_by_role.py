"""Newer recipes: by the program and by usual names, numbers by hand, and errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_rules_by_role as plain
from marks import slow_but
from other_models import hugging_face

import jaxinit as ji
from jaxinit import recipes
from jaxinit.model._rules.conventions import Sites
from jaxinit.model.recipes._form import settle

pytestmark = pytest.mark.usefixtures("quick_compiler")
KEY = jax.random.key(0)
D, F, V, L = plain.D, plain.F, plain.V, plain.L
NAMES = plain.NAMES
CUT = 0.9865785925081234  # standard deviation of a normal law cut at three
GAIN = math.sqrt(math.log(2 * L))


def draws(scale, *shape):
    """Returns the standard deviation of Xavier's law of these fans, times a scale."""
    return scale * math.sqrt(2 / sum(shape))


XAVIER = dict.fromkeys(("q", "k", "v", "o"), draws(1, D, D)) | dict.fromkeys(
    ("up", "down"), draws(1, D, F)
)
WEIGHTS = (*NAMES, "head", "table")
WRITES = ("o", "down")
EXPECTED = {  # standard deviations, by hand; of kernels in a block by its number
    "gemma": (recipes.gemma, lambda number: dict.fromkeys(WEIGHTS, 0.01)),
    "ngpt": (
        recipes.ngpt,
        lambda number: (
            dict.fromkeys(WEIGHTS, D**-0.5) | dict.fromkeys(WRITES, (2 * L * D) ** -0.5)
        ),
    ),
    "magneto": (
        recipes.magneto,
        lambda number: (
            {name: std * (1 if name in "qk" else GAIN) for name, std in XAVIER.items()}
            | {"head": draws(1, D, V), "table": D**-0.5}
        ),
    ),
    "ds_init": (
        lambda: recipes.ds_init(alpha=0.5),
        lambda number: (
            {name: 0.5 * std / math.sqrt(number) for name, std in XAVIER.items()}
            | {"head": draws(1, D, V), "table": D**-0.5}
        ),
    ),
    "olmo normal": (recipes.olmo, lambda number: dict.fromkeys(WEIGHTS, CUT * 0.02)),
    "olmo llama": (
        lambda: recipes.olmo("llama"),
        lambda number: (
            dict.fromkeys(NAMES, CUT * 0.02)
            | dict.fromkeys(WRITES, CUT * 0.02 / math.sqrt(2 * L))
            | {"head": CUT / math.sqrt(D), "table": 1.0}
        ),
    ),
    "olmo llama_depth": (
        lambda: recipes.olmo("llama_depth", std=0.1),
        lambda number: (
            dict.fromkeys(NAMES, CUT * 0.1)
            | dict.fromkeys(WRITES, CUT * 0.1 / math.sqrt(2 * number))
            | {"head": CUT / math.sqrt(D), "table": 1.0}
        ),
    ),
    "olmo normalized": (
        lambda: recipes.olmo("normalized"),
        lambda number: (
            dict.fromkeys((*NAMES, "head"), CUT / math.sqrt(D))
            | dict.fromkeys(WRITES, CUT / math.sqrt(2 * L * D))
            | {"table": D**-0.5}
        ),
    ),
    "olmo fan_in": (
        lambda: recipes.olmo("fan_in"),
        lambda number: (
            dict.fromkeys((*NAMES, "head"), CUT / math.sqrt(D))
            | {"down": CUT / math.sqrt(F), "table": 1.0}
        ),
    ),
}


def stds(params, rules, **options):
    return {row.path: row.std for row in ji.preview(params, rules, **options).rows}


@pytest.mark.parametrize("form", ["by names", "neither"])
@pytest.mark.parametrize("name", EXPECTED)
def test_transformers_need_no_names(name, form):
    rename = plain.RENAMED.get(form, plain.scramble)
    init, apply = plain.FORMS[form]
    make, expected = EXPECTED[name]
    structure = ji.structure((init, apply), plain.IDS)
    rules = [*make(), ("role:table", 0.0)]
    found = stds(init(KEY), rules, structure=structure)
    seen = 0
    for block in range(L):
        for part, std in expected(block + 1).items():
            outer = part in ("head", "table")
            names = [part] if outer else [f"block{block}", part]
            path = "/".join(map(rename, names))
            assert found[path] == pytest.approx(std, rel=1e-6), path
            seen += 1
    assert seen == 8 * L
    for part in ("b", "g"):
        assert found[f"{rename('block0')}/{rename(part)}"] in (0.0, None)


def linen(layers=2, flip=False):
    """Makes the parameters of a transformer with usual names."""
    kernels = {"up": (D, F), "down": (F, D)}

    def layer(name):
        return {"kernel": jnp.zeros(kernels.get(name, (D, D)))}

    attention = {name: layer(name) for name in ("query", "key", "value", "out")}
    mlp = {"fc1": layer("up"), "fc2": layer("down")}
    norm = {"scale": jnp.ones(D), "bias": jnp.zeros(D)}
    block = {"attention": attention, "mlp": mlp, "norm": norm}
    blocks = {f"layers_{i}": block for i in range(layers)}
    table = {"embedding": jnp.zeros((V, D))}
    return {**blocks, "embed": table, "lm_head": {"kernel": jnp.zeros((D, V))}}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (recipes.gemma, (0.01, 0.01, 0.01, 0.01)),
        (lambda: recipes.ngpt(2, D), (D**-0.5, D**-0.5 / 2, D**-0.5, D**-0.5)),
        (
            lambda: recipes.magneto(2),
            (
                draws(1, D, D),
                draws(math.sqrt(math.log(4)), D, F),
                D**-0.5,
                draws(1, D, V),
            ),
        ),
        (
            recipes.ds_init,
            (
                draws(2**-0.5, D, D),
                draws(2**-0.5, D, F),
                D**-0.5,
                draws(1, D, V),
            ),
        ),
        (
            lambda: recipes.olmo("llama_depth"),
            (CUT * 0.02, CUT * 0.02 / 2, 1.0, CUT * D**-0.5),
        ),
    ],
)
def test_usual_names(make, expected):
    found = stds(linen(), make())
    paths = ("layers_1/attention/query/kernel", "layers_1/mlp/fc2/kernel")
    for path, std in zip(
        (*paths, "embed/embedding", "lm_head/kernel"), expected, strict=True
    ):
        assert found[path] == pytest.approx(std, rel=1e-6), path


@pytest.mark.parametrize("model", slow_but(["llama"], ["gpt2", "llama", "bert"]))
@pytest.mark.usefixtures("standard_promotion")
def test_names_and_program_agree(model):
    """On models by others, of two blocks each."""
    module, inputs = hugging_face()[model]
    structure = ji.structure(module, *inputs)
    params = jax.eval_shape(module.init, KEY, *inputs)
    for make, sizes in [
        (recipes.gemma, {}),
        (recipes.ds_init, {}),
        (lambda layers=None: recipes.olmo("llama", layers=layers), {"layers": 2}),
        (lambda: recipes.olmo("llama_depth"), {}),
        (recipes.magneto, {"layers": 2}),
    ]:
        if model == "gpt2" and make is recipes.magneto:
            continue  # one kernel makes queries, keys and values
        by_names = stds(params, make(**sizes))
        by_program = stds(params, [("role:table", None), *make()], structure=structure)
        for path, std in by_program.items():
            row = structure[path.removeprefix("params/")]
            if row.groups == 3 and make is recipes.ds_init:
                continue  # Xavier's law counts the outputs of one, names those of all
            assert not row.is_kernel or std == pytest.approx(by_names[path]), path


def test_the_residual_stream_of_ngpt():
    """It moves on a sphere, towards what a branch computes."""

    def init(key):
        shapes = {"q": (D, D), "k": (D, D), "v": (D, D), "o": (D, D)}
        shapes |= {"up": (D, 2 * F), "down": (F, D), "a": (D,), "b": (D,), "s": (D,)}
        block = {name: jnp.full(shape, 0.5) for name, shape in shapes.items()}
        return {"0": block, "1": block, "in": jnp.zeros((V, D)), "z": jnp.zeros((D, V))}

    def norm(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def apply(params, ids):
        x = params["in"][ids]
        for w in (params["0"], params["1"]):
            q, k = (norm(x @ w[name]) * (w["s"] * D**0.5) for name in "qk")
            mixed = jax.nn.softmax(q @ k.mT) @ (x @ w["v"]) @ w["o"]
            x = norm(norm(x) + jnp.abs(w["a"]) * (norm(mixed) - norm(x)))
            u, v = jnp.split(x @ w["up"] * D**0.5, 2, -1)
            mixed = (u * jax.nn.silu(v)) @ w["down"]
            x = norm(norm(x) + jnp.abs(w["b"]) * (norm(mixed) - norm(x)))
        return x @ params["z"]

    structure = ji.structure((init, apply), plain.IDS)
    drawn = ji.reinit(KEY, init(KEY), recipes.ngpt(), structure=structure)
    found = stds(init(KEY), recipes.ngpt(), structure=structure)
    for name in ("a", "b", "s"):
        assert (drawn["1"][name] == 0.5).all()
    for name, size in {"o": 4 * D, "down": 4 * D, "q": D, "up": D}.items():
        assert found[f"1/{name}"] == pytest.approx(size**-0.5), name


def test_norms_of_gemma_and_ngpt_stay():
    params = linen() | {"norm": {"scale": jnp.full(D, 0.25)}}
    for rules in (recipes.gemma(), recipes.ngpt(2, D)):
        drawn = ji.reinit(KEY, params, rules)
        assert (drawn["norm"]["scale"] == 0.25).all()
        assert (drawn["layers_0"]["norm"]["bias"] == 0).all()
    sizes = {"attn_vec_einsum": (2, D // 2, D), "qkv_einsum": (3, 2, D, D // 2)}
    params = {name: {"w": jnp.zeros(size)} for name, size in sizes.items()}
    params["mlp"] = {"gating_einsum": jnp.zeros((2, D, F)), "linear": jnp.zeros((F, D))}
    params["embedder"] = {"input_embedding": jnp.zeros((V, D))}
    assert {*stds(params, recipes.gemma()).values()} == {0.01}


def test_magneto_of_two_parts():
    """By the formulas of the authors' code, whose decoder leaves cross-attention."""
    n, m = 6, 3
    block = linen(1)["layers_0"]
    params = {"layers_0": block | {"cross_attention": block["attention"]}}

    def gain(part):
        rules = recipes.magneto(n, decoder_layers=m, part=part)
        found = stds(params, rules)
        names = ("attention", "cross_attention")
        paths = [f"layers_0/{name}/value/kernel" for name in names]
        return [found[path] / draws(1, D, D) for path in paths]

    encoder = math.sqrt(math.log(3 * m) * math.log(2 * n) / 3)
    assert gain("encoder") == pytest.approx([encoder, encoder])
    assert gain("decoder") == pytest.approx([math.sqrt(math.log(3 * m)), 1.0])
    rules = recipes.magneto(2, cross="**/attention/value/kernel")
    assert stds(params, rules)["layers_0/attention/value/kernel"] == pytest.approx(
        draws(1, D, D)
    )


def test_ungated_kernels_of_olmo():
    """OLMo-core divides w3, which is multiplied by the gate silu(w1 x), as well."""
    expected = {"w1": CUT * 0.02, "w2": CUT * 0.01, "w3": CUT * 0.01}
    attention = dict.fromkeys(("w_q", "w_k", "w_v", "w_out"), jnp.zeros((D, D)))

    def init(key):
        shapes = {"w1": (D, F), "w3": (D, F), "w2": (F, D)}
        mlp = {name: {"kernel": jnp.zeros(shape)} for name, shape in shapes.items()}
        blocks = {f"layers_{i}": {"mlp": mlp, **attention} for i in range(2)}
        ends = {"lm_head": (D, V), "first": (D, D)}
        outer = {name: {"kernel": jnp.zeros(shape)} for name, shape in ends.items()}
        return blocks | outer

    def apply(params, x):
        x = x @ params["first"]["kernel"]
        for i in range(2):
            block = params[f"layers_{i}"]
            y = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True))
            q, k, v = (y @ block[f"w_{name}"] for name in "qkv")
            p = jax.nn.softmax(q @ k.mT)
            x = x + p @ v @ block["w_out"]
            w = {name: kernel["kernel"] for name, kernel in block["mlp"].items()}
            x = x + (jax.nn.silu(x @ w["w1"]) * (x @ w["w3"])) @ w["w2"]
        return x @ params["lm_head"]["kernel"]

    structure = ji.structure((init, apply), np.ones((2, 5, D), np.float32))
    named = {"mlp": init(KEY)["layers_0"]["mlp"], "attn": {"o_proj": None}}
    named["attn"]["o_proj"] = {"kernel": jnp.zeros((D, D))}
    found = [
        stds(init(KEY), recipes.olmo("llama"), structure=structure),
        {
            f"layers_0/{k}": std
            for k, std in stds(named, recipes.olmo("llama", layers=2)).items()
        },
    ]
    for each in found:
        for name, std in expected.items():
            assert each[f"layers_0/mlp/{name}/kernel"] == pytest.approx(std), name


def test_blocks_that_are_counted_by_the_program():
    """A decoder with attention to an encoder has three branches, and begins anew."""

    def attend(w, x, y):
        p = jax.nn.softmax((x @ w["q"]) @ (y @ w["k"]).mT)
        return p @ (y @ w["v"]) @ w["o"]

    def mix(w, x):
        return jax.nn.relu(x @ w["up"]) @ w["down"]

    def init(key):
        shapes = plain.sizes(False)
        block = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        cross = {name: block[name] for name in ("q", "k", "v", "o")}
        encoder = {f"e{i}": block for i in range(3)}
        decoder = {f"d{i}": block | {"cross": cross} for i in range(2)}
        ends = {"head": jnp.zeros((D, V)), "first": jnp.zeros((D, D))}
        return {**encoder, **decoder, **ends}

    def apply(params, x, y):
        x, y = x @ params["first"], y @ params["first"]
        for i in range(3):
            w = params[f"e{i}"]
            x = x + attend(w, x, x)
            x = x + mix(w, x)
        for i in range(2):
            w = params[f"d{i}"]
            y = y + attend(w, y, y)
            y = y + attend(w["cross"], y, x)
            y = y + mix(w, y)
        return y @ params["head"]

    x = np.ones((2, 5, D), np.float32)
    structure = ji.structure((init, apply), x, x)
    found = stds(init(KEY), recipes.ds_init(), structure=structure)
    for name in ("e0", "e1", "e2", "d0", "d1"):
        gain = (int(name[1]) + 1) ** -0.5
        assert found[f"{name}/o"] == pytest.approx(draws(gain, D, D)), name
        assert found[f"{name}/up"] == pytest.approx(draws(gain, D, F)), name
    assert found["d1/cross/o"] == pytest.approx(draws(2**-0.5, D, D))
    assert found["head"] == pytest.approx(draws(1, D, V))


def test_blocks_by_patterns():
    rules = recipes.ds_init(blocks={"layers_0/**": 4, "layers_1/**": 9})
    found = stds(linen(), rules)
    for i, number in enumerate((4, 9)):
        path = f"layers_{i}/attention/key/kernel"
        assert found[path] == pytest.approx(draws(number**-0.5, D, D))
    assert found["layers_0/norm/scale"] == 0.0
    nested = {f"stage_{i}": linen() for i in range(2)}
    with pytest.raises(ValueError, match=r"several numbered parts.*ds_init\(blocks="):
        stds(nested, recipes.ds_init())
    flat = {"attn": linen()["layers_0"]["attention"]}
    with pytest.raises(ValueError, match="no kernel of a numbered block here.*blocks="):
        stds(flat, recipes.ds_init())
    with pytest.raises(ValueError, match=r"in no block with a number.*olmo\(blocks="):
        stds(linen()["layers_0"], recipes.olmo("llama_depth"))
    with pytest.raises(ValueError, match=r"parameter that fits \*\*/deep/\*\* here"):
        stds(linen(), recipes.ds_init(blocks={"**/deep/**": 1}))


def test_blocks_that_cannot_be_counted():
    import flax.linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _=None):
            x = x + nn.MultiHeadDotProductAttention(2)(x)
            return x + nn.Dense(D)(nn.relu(nn.Dense(F)(x))), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                Block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            return nn.Dense(3)(scan()(x, None)[0])

    class Mixed(nn.Module):
        attends: tuple

        @nn.compact
        def __call__(self, x):
            x = nn.Dense(D)(x)
            for attends in self.attends:
                layer = nn.MultiHeadDotProductAttention(2) if attends else nn.Dense(D)
                x = x + layer(nn.relu(x))
            return nn.Dense(3)(x)

    x = jnp.ones((2, 5, D))
    for model, why in [
        (Stack(), "a loop stacks it"),
        (Mixed((False, True)), "do not begin with attention"),
        (Mixed((False, False)), "do not begin with attention"),
        (Mixed((True, True)), "attention stands in each"),
        (Mixed((1, 0, 1, 0, 0, 1, 0)), "different numbers of residual branches"),
    ]:
        structure = ji.structure(model, x)
        params = jax.eval_shape(model.init, KEY, x)
        with pytest.raises(ValueError, match=f"{why}.*ds_init\\(blocks="):
            stds(params, recipes.ds_init(), structure=structure)


def actor_critic(rename=str, flip=False, actions=3):
    """Makes a network of plain functions with two heads."""
    shapes = {"one": (6, 16), "two": (16, 16), "pi": (16, actions), "v": (16, 1)}

    def init(key):
        kernels = {
            rename(name): jnp.zeros(shape[::-1] if flip else shape)
            for name, shape in shapes.items()
        }
        biases = {rename(f"{x}_b"): jnp.ones(shape[1]) for x, shape in shapes.items()}
        return kernels | biases | {"log_std": jnp.ones((1, actions))}

    def apply(params, x):
        def layer(name, x):
            w = params[rename(name)]
            return x @ (w.T if flip else w) + params[rename(f"{name}_b")]

        x = jnp.tanh(layer("two", jnp.tanh(layer("one", x))))
        mean = layer("pi", x)
        return mean, jnp.exp(params["log_std"]), layer("v", x)[..., 0]

    return init, apply


@pytest.mark.parametrize("flip", slow_but([True], [False, True]))
@pytest.mark.slow
def test_ppo_by_the_program(flip):
    init, apply = actor_critic(plain.scramble, flip)
    structure = ji.structure((init, apply), np.ones((2, 6), np.float32))
    drawn = ji.reinit(KEY, init(KEY), recipes.ppo(), structure=structure)
    for name, gain in {"one": 2**0.5, "two": 2**0.5, "pi": 0.01, "v": 1.0}.items():
        values = np.linalg.svd(drawn[plain.scramble(name)], compute_uv=False)
        np.testing.assert_allclose(values, gain, rtol=1e-5)
        assert not drawn[plain.scramble(f"{name}_b")].any()
    assert not drawn["log_std"].any()
    rules = recipes.ppo(0.5, 2.0, hidden=1.0)
    rows = ji.preview(init(KEY), rules, structure=structure).rows
    laws = {row.path: row.law for row in rows}
    column = {"column_axis": 0} if flip else {}
    assert laws[plain.scramble("pi")] == ji.orthogonal(0.5, **column)
    assert laws[plain.scramble("v")] == ji.orthogonal(2.0, **column)
    assert laws[plain.scramble("two")] == ji.orthogonal(1.0, **column)


def test_one_output_is_no_guess():
    """With a single action, nothing but names tells the actor from the critic."""
    init, apply = actor_critic(plain.scramble, actions=1)
    structure = ji.structure((init, apply), np.ones((2, 6), np.float32))
    with pytest.raises(ValueError, match="may be the last kernel of the actor, or"):
        stds(init(KEY), recipes.ppo(), structure=structure)
    pi, v = map(plain.scramble, ("pi", "v"))
    for options in ({"actor_head": pi}, {"critic_head": v}):
        rows = ji.preview(init(KEY), recipes.ppo(**options), structure=structure).rows
        laws = {row.path: row.law for row in rows}
        assert laws[pi] == ji.orthogonal(0.01) and laws[v] == ji.orthogonal()
    rename = {"pi": "policy", "v": "value"}
    init, apply = actor_critic(lambda name: rename.get(name, name), actions=1)
    structure = ji.structure((init, apply), np.ones((2, 6), np.float32))
    tree = {"actor_head": jnp.zeros((16, 1)), "vf": jnp.zeros((16, 1))}
    tree = {name: {"kernel": kernel} for name, kernel in tree.items()}
    laws = {row.path: row.law for row in ji.preview(tree, recipes.ppo()).rows}
    assert laws["actor_head/kernel"] == ji.orthogonal(0.01)
    assert laws["vf/kernel"] == ji.orthogonal()


def test_ppo_by_names():
    """As CleanRL and stable-baselines3 call them."""

    def layers(*numbers, kernel="weight"):
        return {
            str(i): {kernel: jnp.zeros((8, 8)), "bias": jnp.ones(8)} for i in numbers
        }

    continuous = {
        "critic": layers(0, 2, 4),
        "actor_mean": layers(0, 2, 4),
        "actor_logstd": jnp.ones((1, 8)),
    }
    atari = {"network": layers(0, 2), "actor": layers(0)["0"], "critic": layers(0)["0"]}
    extractor = {"policy_net": layers(0, 2), "value_net": layers(0, 2)}
    baselines = {
        "mlp_extractor": extractor,
        "action_net": layers(0)["0"],
        "value_net": layers(0)["0"],
    }
    cases = [
        (continuous, "actor_mean/4/weight", "critic/4/weight"),
        (atari, "actor/weight", "critic/weight"),
        (baselines, "action_net/weight", "value_net/weight"),
    ]
    for params, actor, critic in cases:
        rows = ji.preview(params, recipes.ppo()).rows
        laws = {row.path: row.law for row in rows if row.path.endswith("weight")}
        head = {actor: 0.01, critic: 1.0}
        for path, law in laws.items():
            scale = head.get(path, math.sqrt(2))
            assert law == ji.orthogonal(scale, column_axis=0), path
    dense = {f"Dense_{i}": {"kernel": jnp.zeros((8, 8))} for i in range(6)}
    with pytest.raises(ValueError, match=r"last kernel of the actor here.*actor_head="):
        stds(dense, recipes.ppo())
    with pytest.raises(ValueError, match=r"last kernel of the critic.*critic_head="):
        stds(dense, recipes.ppo(actor_head="Dense_2/kernel"))
    rules = recipes.ppo(actor_head="Dense_2/kernel", critic_head=())
    laws = [row.law for row in ji.preview(dense, rules).rows]
    assert laws.count(ji.orthogonal(math.sqrt(2))) == 5


@pytest.mark.parametrize("flip", slow_but([True], [False, True]))
def test_siren(flip):
    shapes = {"a": (2, 16), "b": (16, 16), "c": (16, 3)}

    def init(key):
        kernels = {k: jnp.zeros(s[::-1] if flip else s) for k, s in shapes.items()}
        return kernels | {f"{name}_b": jnp.zeros(s[1]) for name, s in shapes.items()}

    def apply(params, x):
        for name in shapes:
            w = params[name]
            x = x @ (w.T if flip else w) + params[f"{name}_b"]
            x = x if name == "c" else jnp.sin(30 * x)
        return x

    structure = ji.structure((init, apply), np.ones((5, 2), np.float32))
    drawn = ji.reinit(KEY, init(KEY), recipes.siren(), structure=structure)
    found = stds(init(KEY), recipes.siren(), structure=structure)
    bounds = {"a": 1 / 2, "b": math.sqrt(6 / 16) / 30, "c": math.sqrt(6 / 16) / 30}
    bounds |= {"a_b": 2**-0.5, "b_b": 1 / 4, "c_b": 1 / 4}
    for name, bound in bounds.items():
        assert found[name] == pytest.approx(bound / math.sqrt(3), rel=1e-6), name
        assert 0 < np.abs(drawn[name]).max() <= bound
    names = {"a": "net_0", "b": "net_1", "c": "net_2"}
    tree = {names[k]: {"kernel": jnp.zeros(s)} for k, s in shapes.items()}
    by_name = stds(tree, recipes.siren(omega=15.0))
    assert by_name["net_0/kernel"] == pytest.approx(bounds["a"] / math.sqrt(3))
    assert by_name["net_2/kernel"] == pytest.approx(2 * bounds["c"] / math.sqrt(3))


def test_first_layers_by_names():
    def tree(*rows):
        return {path: {"kernel": jnp.zeros(shape)} for path, *shape in rows}

    for params, first in [
        (tree(("first", 2, 8), ("hidden", 8, 8), ("out", 8, 1)), "first"),
        (
            tree(("SirenLayer_0", 3, 8), ("SirenLayer_1", 8, 8), ("out", 8, 1)),
            "SirenLayer_0",
        ),
    ]:
        found = stds(params, recipes.siren())
        inputs = params[first]["kernel"].shape[0]
        assert found[f"{first}/kernel"] == pytest.approx(1 / inputs / math.sqrt(3))
        assert sum(std > 0.1 for std in found.values()) == 1
    for params in (
        tree(("map", 2, 8), ("hidden_0", 8, 8), ("hidden_1", 8, 8)),
        tree(("Dense_0", 8, 8), ("Dense_1", 8, 8)),
        tree(("Dense_0", 8, 2), ("Dense_1", 2, 8)),
    ):
        with pytest.raises(ValueError, match=r"kernel of the first layer here.*first="):
            stds(params, recipes.siren())
    rules = recipes.siren(first="map/kernel")
    params = tree(("map", 2, 8), ("hidden_0", 8, 8))
    assert stds(params, rules)["map/kernel"] == pytest.approx(0.5 / math.sqrt(3))


E, N, R, H, P, K = 16, 4, 3, 4, 4, 4  # channels, states, rank, heads, size, window


def mamba(second, rename=str):
    """Makes Mamba, or Mamba-2, of plain functions."""
    mixed = E + 2 * N if second else E
    shapes = {
        "in_proj": (D, E + mixed + H if second else 2 * E),
        "conv": (K, 1, mixed),
        "conv_b": (mixed,),
        "dt_bias": (H if second else E,),
        "A_log": (H,) if second else (E, N),
        "D": (H if second else E,),
        "out": (E, D),
        "g": (D,),
    }
    if not second:
        shapes |= {"x_proj": (E, R + 2 * N), "dt": (R, E)}

    def init(key):
        block = {rename(name): jnp.zeros(shape) for name, shape in shapes.items()}
        blocks = {f"b{i}": block for i in range(L)}
        return {"embedding": jnp.zeros((V, D)), **blocks}

    def norm(x, gain):
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * gain

    def convolve(w, u):
        dimensions = ("NHC", "HIO", "NHC")
        u = jax.lax.conv_general_dilated(
            *(u, w["conv"], (1,), [(K - 1, 0)]),
            dimension_numbers=dimensions,
            feature_group_count=mixed,
        )
        return jax.nn.silu(u + w["conv_b"])

    def scan(decay, entries, reads):
        def step(state, each):
            state = each[0] * state + each[1]
            return state, jnp.einsum("bhpn,bn->bhp", state, each[2])

        each = [jnp.moveaxis(x, 1, 0) for x in (decay, entries, reads)]
        state = jnp.zeros(each[1].shape[1:])
        return jnp.moveaxis(jax.lax.scan(step, state, tuple(each))[1], 0, 1)

    def mix(w, x):
        y = norm(x, w["g"]) @ w["in_proj"]
        if second:
            z, u, dt = jnp.split(y, [E, E + mixed], -1)
            u, b, c = jnp.split(convolve(w, u), [E, E + N], -1)
            dt = jax.nn.softplus(dt + w["dt_bias"])
            u = u.reshape(*u.shape[:2], H, P)
            decay = jnp.exp(dt * -jnp.exp(w["A_log"]))[..., None, None]
            entries = jnp.einsum("blh,bln,blhp->blhpn", dt, b, u)
            y = scan(decay, entries, c) + u * w["D"][:, None]
        else:
            u, z = jnp.split(y, 2, -1)
            u = convolve(w, u)
            dt, b, c = jnp.split(u @ w["x_proj"], [R, R + N], -1)
            dt = jax.nn.softplus(dt @ w["dt"] + w["dt_bias"])
            decay = jnp.exp(dt[..., None] * -jnp.exp(w["A_log"]))[..., None, :]
            entries = (dt * u)[..., None, None] * b[:, :, None, None, :]
            y = scan(decay, entries, c)[..., 0] + u * w["D"]
        return (y.reshape(*y.shape[:2], E) * jax.nn.silu(z)) @ w["out"]

    def apply(params, ids):
        x = params["embedding"][ids]
        for i in range(L):
            x = x + mix({name: params[f"b{i}"][rename(name)] for name in shapes}, x)
        return x @ params["embedding"].T

    return init, apply


@pytest.mark.parametrize("second", slow_but([False], [False, True]))
@pytest.mark.slow
def test_mamba_by_the_program(second):
    init, apply = mamba(second, plain.scramble)
    structure = ji.structure((init, apply), plain.IDS)
    assert structure.branches == L
    params = init(KEY)
    drawn = ji.reinit(KEY, params, recipes.mamba(), structure=structure, strict=True)
    found = stds(params, recipes.mamba(), structure=structure)
    assert found["embedding"] == 0.02
    inputs = {"in_proj": D, "conv": K, "conv_b": K, "out": E}
    inputs |= {} if second else {"x_proj": E, "dt": R}
    for i in range(L):
        block = {
            x: drawn[f"b{i}"][plain.scramble(x)] for x in ("D", "dt_bias", "A_log")
        }
        for name, size in inputs.items():
            std = 1 / math.sqrt(3 * size * (L if name == "out" else 1))
            assert found[f"b{i}/{plain.scramble(name)}"] == pytest.approx(std), name
        assert (block["D"] == 1).all()
        steps = jax.nn.softplus(block["dt_bias"])
        assert 0.00099 < steps.min() < steps.max() < 0.101
        rates = np.exp(block["A_log"])
        if second:
            assert 1 <= rates.min() < rates.max() <= 16.001
        else:
            np.testing.assert_allclose(rates, [[1, 2, 3, 4]] * E, rtol=1e-6)
    halved = stds(params, recipes.mamba(residuals=2, layers=L), structure=structure)
    out = f"b0/{plain.scramble('out')}"
    assert halved[out] == pytest.approx(found[out] / math.sqrt(2))


def mamba_of_torch(states=4, channels=16):
    linear = {
        "in_proj": (2 * channels, 8),
        "x_proj": (11, channels),
        "dt_proj": (channels, 3),
        "out_proj": (8, channels),
    }
    mixer = {name: {"weight": jnp.ones(shape)} for name, shape in linear.items()}
    mixer["dt_proj"]["bias"] = jnp.ones(channels)
    mixer["conv1d"] = {"weight": jnp.ones((channels, 1, 4)), "bias": jnp.ones(channels)}
    mixer |= {"A_log": jnp.ones((channels, states)), "D": jnp.zeros(channels)}
    layer = {"mixer": mixer, "norm": {"weight": jnp.zeros(8)}}
    embedding = {"weight": jnp.ones((50, 8))}
    return {"embedding": embedding, "layers": {"0": layer, "1": layer}}


@pytest.mark.slow
def test_mamba_by_names():
    params = mamba_of_torch()
    found = stds(params, recipes.mamba(layers=2))
    at = "layers/0/mixer/"
    for name, size in {"in_proj": 8, "x_proj": 16, "dt_proj": 3, "conv1d": 4}.items():
        assert found[f"{at}{name}/weight"] == pytest.approx(1 / math.sqrt(3 * size))
    assert found[f"{at}out_proj/weight"] == pytest.approx(1 / math.sqrt(6 * 16))
    assert found[f"{at}conv1d/bias"] == pytest.approx(1 / math.sqrt(12))
    assert found["embedding/weight"] == 0.02
    drawn = ji.reinit(KEY, params, recipes.mamba(layers=2))["layers"]["1"]
    assert (drawn["mixer"]["D"] == 1).all() and (drawn["norm"]["weight"] == 1).all()
    assert jax.nn.softplus(drawn["mixer"]["dt_proj"]["bias"]).max() < 0.101
    np.testing.assert_allclose(jnp.exp(drawn["mixer"]["A_log"])[5], [1, 2, 3, 4], 1e-6)
    with pytest.raises(ValueError, match="more states than channels"):
        stds(mamba_of_torch(states=32), recipes.mamba(layers=2))
    with pytest.raises(ValueError, match=r"logarithm of the rates.*mamba\(rates="):
        stds(linen(), recipes.mamba(2))
    with pytest.raises(ValueError, match=r"recipes.mamba needs layers here"):
        stds(params, recipes.mamba())


@pytest.mark.slow
def test_steps_and_rates_have_their_laws():
    """A Kolmogorov-Smirnov distance of 1.63 / sqrt(n) has a level of one percent."""
    n = 20_000
    bias, rates = jnp.zeros(n), jnp.zeros(n)
    rules = recipes.mamba(1, steps=(0.01, 1.0), residual="kernel")
    params = {"dt_bias": bias, "A_log": rates, "out": {"kernel": jnp.zeros((2, 2))}}
    drawn = ji.reinit(KEY, params, rules)
    steps = np.sort(np.log10(jax.nn.softplus(drawn["dt_bias"])))
    places = (np.arange(n) + 0.5) / n
    assert np.abs((steps + 2) / 2 - places).max() < 1.63 / math.sqrt(n)
    rates = np.sort(np.exp(drawn["A_log"]))
    assert np.abs((rates - 1) / 15 - places).max() < 1.63 / math.sqrt(n)
    low = ji.reinit(
        KEY, params, recipes.mamba(1, steps=(1e-9, 2e-9), residual="kernel")
    )
    least = jax.nn.softplus(low["dt_bias"])
    np.testing.assert_allclose(least, 1e-4, rtol=1e-3)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    assert ji.reinit(KEY, half, rules)["dt_bias"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recipes.gemma(std=-1), r"gemma\(std=-1\): std must be 0 or above"),
        (lambda: recipes.ngpt(0), r"ngpt\(layers=0\): layers must be 1 or above"),
        (lambda: recipes.ngpt(1, 0), r"ngpt\(width=0\): width must be 1 or above"),
        (lambda: recipes.magneto(0), r"magneto\(layers=0\): layers must be 1"),
        (lambda: recipes.magneto(1, part="both"), r"magneto\(part='both'\): part must"),
        (lambda: recipes.ds_init(-1), r"ds_init\(alpha=-1\): alpha must be 0 or above"),
        (
            lambda: recipes.ds_init(blocks={"a": 0}),
            r"ds_init\(blocks=0\): blocks must be 1 or above",
        ),
        (lambda: recipes.olmo("lama"), "method must be one of .* Did you mean 'llama'"),
        (
            lambda: recipes.olmo(layers=2),
            r"olmo\(layers=2\): layers is not used by the method 'normal'",
        ),
        (
            lambda: recipes.olmo("fan_in", std=1),
            "std is not used by the method 'fan_in'",
        ),
        (lambda: recipes.ppo(-1), r"ppo\(actor=-1\): actor must be 0 or above"),
        (lambda: recipes.ppo(hidden=-1), r"ppo\(hidden=-1\): hidden must be 0"),
        (lambda: recipes.siren(0), r"siren\(omega=0\): omega must be above 0"),
        (lambda: recipes.mamba(residuals=0), r"mamba\(residuals=0\): residuals must"),
        (lambda: recipes.mamba(steps=(1, 0)), r"mamba\(steps=\(1, 0\)\): the smallest"),
    ],
)
def test_misuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_axes_in_doubt_under_a_law_without_moments():
    """Laws that state no moments are told apart by themselves."""
    site = Sites({"conv/kernel": jnp.zeros((8, 8, 8))})["conv/kernel"]
    assert settle(site, lambda way: ji.stacked(jax.random.normal)).name == "stacked"
    doubtful = Sites({"attn/thing/kernel": jnp.zeros((8, 8, 8))})["attn/thing/kernel"]
    assert len(doubtful.readings) > 1
    one = ji.stacked(jax.random.normal)
    assert settle(doubtful, lambda way: one) == one
    with pytest.raises(ValueError, match=r"can be read as .* stacked\(.* Say which"):
        axes = iter(range(9))
        settle(doubtful, lambda way: ji.stacked(jax.random.normal, next(axes)))


def test_misuse_by_type():
    with pytest.raises(
        TypeError, match=r"ds_init\(blocks=3\): blocks must be a mapping"
    ):
        recipes.ds_init(blocks=3)
    with pytest.raises(TypeError, match=r"olmo\(blocks=3\): blocks must be a mapping"):
        recipes.olmo("llama_depth", blocks=3)
    with pytest.raises(TypeError, match=r"mamba\(steps=1\): steps must be two numbers"):
        recipes.mamba(steps=1)
