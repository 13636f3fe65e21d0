"""Kernels of draws: interpreted, the values of their references; lowered, for devices.

What is interpreted here is what Triton and Mosaic compile; on a machine with a GPU the
tests marked so hold the compiled kernels against the references too.
"""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
from marks import slow_but
from scipy import stats

from jaxinit import random
from jaxinit._moments import moments
from jaxinit.random import _kernel, backends, threefry
from jaxinit.testing import LEVEL

KEY = jax.random.key(7)
LINE = threefry.LINE
TILE = LINE * _kernel.TILES.lines  # of a TPU
SIZES = [1, 2, 127, 128, 129, LINE - 1, LINE, LINE + 1, 3 * LINE, 3 * LINE + 513]
SHAPES = [*[(n,) for n in SIZES], (), (3, 5), (4, 0, 2), (7, 1, 129)]
TPU_SHAPES = [(129,), (TILE - 1,), (2 * TILE,), (2, TILE // 2 + 1)]

DRAWS = {
    "bits": lambda key, shape, **impl: random.bits(key, shape, "uint32", **impl),
    "uniform": lambda key, shape, **impl: random.uniform(key, shape, **impl),
    "between": lambda key, shape, **impl: random.uniform(
        key, shape, "float32", -2.5, 0.75, **impl
    ),
    "normal": lambda key, shape, **impl: random.normal(key, shape, **impl),
    "truncated": lambda key, shape, **impl: random.truncated_normal(
        key, -1.0, 2.5, shape, **impl
    ),
}
LAWS = {  # their distribution functions
    "uniform": stats.uniform,
    "between": stats.uniform(-2.5, 3.25),
    "normal": stats.norm,
    "truncated": stats.truncnorm(-1, 2.5),
}
# Since JAX 0.11; Mosaic GPU, the successor, lowers neither log1p nor masked stores yet
# (JAX 0.12).
pytestmark = pytest.mark.filterwarnings(
    "ignore:The Pallas Triton backend is deprecated:DeprecationWarning"
)
draws = pytest.mark.parametrize("law", DRAWS)
kernels = pytest.mark.parametrize("impl", ["pallas", "paired"])
devices = pytest.mark.parametrize("device", ["other", "tpu"])


def same(ours, expected):
    """Compares bits."""
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
    assert ours.tobytes() == expected.tobytes()


# Draws


DRAWN: dict[tuple[str, str], dict[str, list]] = {}


def draw_every_law(impl, device, on):
    """Draws by kernels and by their reference: pairs by law; once for all tests.

    Every law has a key of its own, lest their draws become one.
    """
    if (impl, device) in DRAWN:
        return DRAWN[impl, device]
    shapes = TPU_SHAPES if device == "tpu" else SHAPES

    def all_of(keys, impl):
        return {  # bits alone have all shapes: a law knows nothing of them
            law: [
                DRAWS[law](key, shape, impl=impl)
                for shape in (shapes if law == "bits" else shapes[-3:])
            ]
            for law, key in keys.items()
        }

    keys = dict.fromkeys(DRAWS, KEY)
    reference = "fused" if impl == "pallas" else impl
    expected = jax.device_get(jax.jit(all_of, static_argnums=1)(keys, reference))
    with on(device):
        found = jax.device_get(jax.jit(all_of, static_argnums=1)(keys, impl))
    pairs = {law: list(zip(found[law], expected[law], strict=True)) for law in DRAWS}
    return DRAWN.setdefault((impl, device), pairs)


@pytest.mark.slow
@draws
@devices
@kernels
def test_kernels_give_the_values_of_their_references(impl, device, law, on):
    for ours, known in draw_every_law(impl, device, on)[law]:
        same(ours, known)


@pytest.mark.parametrize(
    "laws", slow_but([["truncated"]], [["truncated"], list(DRAWS)[:-1]]), ids=len
)
@pytest.mark.slow
def test_every_path_but_paired_gives_the_same(laws):
    """Of several laws, each with a key of its own in one program."""

    @functools.partial(jax.jit, static_argnames="impl")
    def drawn(keys, impl):
        pairs = zip(laws, keys, strict=True)
        return [DRAWS[law](key, (3, 500), impl=impl) for law, key in pairs]

    keys = [KEY] * len(laws)
    expected = drawn(keys, impl="jax")
    for impl in (None, "fused", "pallas"):
        for ours, known in zip(drawn(keys, impl=impl), expected, strict=True):
            same(ours, known)
    for ours, known in zip(drawn(keys, impl="paired"), expected, strict=True):
        assert (np.asarray(ours) != known).mean() > 0.99


@pytest.mark.parametrize(
    "tile", slow_but([2**31 - 1], [0, 1, 2**22 - 1, 2**22, 2**31 - 1])
)
def test_counters_past_a_word(tile):
    shape = (8, LINE)
    counters = [tile * 8 * LINE + place for place in range(8 * LINE)]
    halves = [c >> 32 for c in counters] + [c % 2**32 for c in counters]
    data = jax.random.key_data(KEY)
    expected = threefry_2x32(data, np.array(halves, np.uint32))
    found = _kernel.words(*data, jnp.asarray(np.int32(tile)), shape)
    same(np.ravel(found), expected)


@pytest.mark.parametrize(
    "size", slow_but([2 * LINE + 600], [1, 700, LINE, 2 * LINE + 600])
)
def test_paired_takes_both_words_of_each_block(size):
    drawn = np.asarray(random.bits(KEY, (size,), "uint32", impl="paired"))
    places = np.arange(size)
    blocks = places // LINE * (LINE // 2) + places % (LINE // 2)
    counters = np.concatenate([0 * blocks, blocks]).astype(np.uint32)
    words = np.asarray(threefry_2x32(jax.random.key_data(KEY), counters))
    second = places % LINE >= LINE // 2
    same(drawn, np.where(second, words[size:], words[:size]))


@pytest.mark.parametrize("law", slow_but(["normal"], LAWS))
def test_paired_has_the_law_and_independent_halves(law):
    drawn = np.asarray(DRAWS[law](KEY, (200 * LINE,), impl="paired"))
    assert stats.kstest(drawn, LAWS[law].cdf).pvalue > LEVEL
    halves = LAWS[law].cdf(drawn).reshape(-1, 2, LINE // 2)
    first, second = halves[:, 0].ravel(), halves[:, 1].ravel()
    assert stats.kstest(first, "uniform").pvalue > LEVEL
    assert stats.kstest(second, "uniform").pvalue > LEVEL
    assert stats.pearsonr(first, second).pvalue > LEVEL
    cells = np.histogram2d(first, second, 8, [(0, 1), (0, 1)])[0]
    assert stats.chisquare(cells.ravel()).pvalue > LEVEL


def test_paired_words_have_independent_bits():
    drawn = np.asarray(random.bits(KEY, (100 * LINE,), "uint32", impl="paired"))
    first, second = np.moveaxis(drawn.reshape(-1, 2, LINE // 2), 1, 0)
    flips = np.bitwise_count(first ^ second).sum()
    assert stats.binomtest(int(flips), 32 * first.size).pvalue > LEVEL


@pytest.mark.parametrize("impl", slow_but(["pallas"], ["pallas", "paired"]))
def test_kernels_draw_a_batch_of_keys(impl):
    keys = jax.random.split(KEY, 3)

    def draw(key, low):
        return random.uniform(key, (5, 300), "float32", low, 1.0, impl=impl)

    low = jnp.asarray([-1.0, 0.0, 0.5])
    expected = np.stack([draw(*pair) for pair in zip(keys, low, strict=True)])
    same(jax.jit(jax.vmap(draw))(keys, low), expected)


@pytest.mark.parametrize("impl", slow_but(["fused"], backends.BACKENDS))
@pytest.mark.slow
def test_every_path_takes_legacy_keys_and_draws_complex_numbers(impl):
    legacy = jax.random.key_data(KEY)
    for draw in (
        random.normal,
        lambda *a, **k: random.truncated_normal(*a[:1], 0, 2, *a[1:], **k),
    ):
        typed = draw(KEY, (40,), "complex64", impl=impl)
        same(draw(legacy, (40,), "complex64", impl=impl), typed)
        if impl != "paired":
            same(typed, draw(KEY, (40,), "complex64"))


@pytest.mark.usefixtures("x64")
def test_fused_draws_64_bits():
    same(random.bits(KEY, (9,), impl="fused"), jax.random.bits(KEY, (9,)))
    drawn = random.normal(KEY, (9,), "float64", impl="fused")
    same(drawn, jax.jit(lambda: jax.random.normal(KEY, (9,), "float64"))())


def test_paired_needs_no_partitionable_threefry():
    expected = random.normal(KEY, (40,), impl="paired")
    with jax.threefry_partitionable(False):
        same(random.normal(KEY, (40,), impl="paired"), expected)


# Lowering

# JAX cannot lower a kernel without being told for which kind of chip.
KINDS = {"cuda": ("NVIDIA H200", "gpu"), "tpu": ("TPU v5e", "tpu")}
TARGETS = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}
LOWERED = [(5000,), (64, 1024), (), (2**17, 2**17)]
platforms = pytest.mark.parametrize("platform", KINDS)
shapes = pytest.mark.parametrize("shape", slow_but(LOWERED[-1:], LOWERED), ids=str)


def lowered(function, platform, *arguments):
    """Exports a function for a platform that need not be there; returns its program."""
    kind, family = KINDS[platform]
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=family)
    allow = [jax.export.DisabledSafetyCheck.custom_call(TARGETS["cuda"])]
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
        export = jax.export.export(
            jax.jit(function), platforms=[platform], disabled_checks=allow
        )
        return export(*arguments).mlir_module()


def calls(program, platform):
    return program.count(f"@{TARGETS[platform]}(")


@pytest.mark.parametrize("law", slow_but(["truncated"], DRAWS))
@shapes
@platforms
@kernels
def test_draws_lower_to_one_kernel(impl, platform, shape, law):
    keys = jax.random.split(KEY, 3)
    draw = functools.partial(DRAWS[law], shape=shape, impl=impl)
    assert calls(lowered(draw, platform, KEY), platform) == 1
    assert calls(lowered(jax.vmap(draw), platform, keys), platform) == 1


@pytest.mark.parametrize(
    "dtype", slow_but(["float32"], ["float32", "bfloat16", "float16"])
)
@shapes
@platforms
@pytest.mark.slow
def test_moments_lower_to_one_kernel(platform, shape, dtype):
    one = functools.partial(moments, impl="pallas")
    x = jax.ShapeDtypeStruct((3, *shape), dtype)
    for function in (one, jax.vmap(one)):
        assert calls(lowered(function, platform, x), platform) == 1
    if shape:
        over_rows = functools.partial(one, axes=1)
        assert calls(lowered(over_rows, platform, x), platform) == 1


@pytest.mark.parametrize("law", slow_but(["truncated"], DRAWS))
@pytest.mark.parametrize("impl", [None, "jax", "fused"])
@platforms
def test_other_paths_lower_to_no_kernel(platform, impl, law):
    """Else the tests above show nothing."""
    draw = functools.partial(DRAWS[law], shape=(64, 1024), impl=impl)
    assert not calls(lowered(draw, platform, KEY), platform)


@pytest.mark.slow
def test_pallas_is_imported_when_it_is_asked_for():
    code = (
        "import sys, jax; from jaxinit import random, _moments; k = jax.random.key(0)"
    )
    code += "; _moments.moments(random.normal(k, (9,))); known = '{0}' in sys.modules"
    code += (
        "; random.normal(k, (9,), impl='pallas'); print(known, '{0}' in sys.modules)"
    )
    run = [sys.executable, "-c", code.format("jaxinit._tiles")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


# On a device

gpu = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")


@pytest.mark.gpu
@gpu
@draws
def test_kernels_of_draws_on_the_device(law):
    """Bits are exact; elsewhere products may be fused with sums, or not."""
    for shape in [*SHAPES, (300, 1024)]:
        draw = jax.jit(DRAWS[law], static_argnums=1, static_argnames="impl")
        expected = np.asarray(draw(KEY, shape, impl="jax"))
        for impl in ("fused", "pallas"):
            found = np.asarray(draw(KEY, shape, impl=impl))
            if law in ("bits", "uniform"):
                same(found, expected)
            else:
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        on_cpu = jax.device_put(KEY, jax.devices("cpu")[0])
        expected = np.asarray(draw(on_cpu, shape, impl="paired"))
        found = np.asarray(draw(KEY, shape, impl="paired"))
        if law in ("bits", "uniform"):
            same(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# Messages

RBG = jax.random.key(0, impl="rbg")
CURE = "Write jax.random.key(0, impl='threefry2x32'), or leave impl out."
CHOICES = "impl must be one of 'jax', 'fused', 'pallas', 'paired'."


@pytest.mark.parametrize(
    ("law", "call"),
    [
        ("bits", lambda key, dtype, impl: random.bits(key, (2,), dtype, impl=impl)),
        ("normal", lambda key, dtype, impl: random.normal(key, (2,), dtype, impl=impl)),
        (
            "uniform",
            lambda key, dtype, impl: random.uniform(key, (2,), dtype, impl=impl),
        ),
        (
            "truncated_normal",
            lambda key, dtype, impl: random.truncated_normal(
                key, -1, 1, (2,), dtype, impl=impl
            ),
        ),
    ],
)
def test_messages_of_draws(law, call):
    def message(key, dtype, impl):
        with pytest.raises(ValueError) as raised:
            call(key, dtype, impl)
        before = f"random.{law}(key, shape, dtype, impl={impl!r}): "
        assert str(raised.value).startswith(before)
        return str(raised.value).removeprefix(before)

    kind = "uint" if law == "bits" else "float"
    assert message(KEY, f"{kind}32", "palas") == f"{CHOICES} Did you mean 'pallas'?"
    assert message(KEY, f"{kind}32", 3) == CHOICES
    for impl, fit in (("fused", "32 or 64"), ("pallas", "32"), ("paired", "32")):
        found = message(RBG, f"{kind}32", impl)
        assert found == f"needs a threefry2x32 key, not one of rbg. {CURE}"
        found = message(KEY, f"{kind}16", impl)
        assert found == (
            f"draws real numbers of {fit} bits, and {kind}16 has 16. "
            "Leave impl out, or choose another dtype."
        )
        if impl != "paired":
            with jax.threefry_partitionable(False):
                found = message(KEY, f"{kind}32", impl)
            assert found == (
                "gives the values of jax_threefry_partitionable, which is off. "
                "Set it, or leave impl out."
            )
    with jax.enable_x64(True):
        wide = "uint64" if law == "bits" else "float64"
        assert f"draws real numbers of 32 bits, and {wide} has 64." in message(
            KEY, wide, "pallas"
        )
    if law in ("normal", "truncated_normal"):
        with jax.enable_x64(True):
            found = message(KEY, "complex128", "paired")
        assert "complex128 has 64" in found
