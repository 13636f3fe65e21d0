"""Flax's own layers as clients: each that takes initializers, with each that fits.

The layers, and their arguments that are initializers, are found by introspection. A
first pass records how Flax calls an initializer: by position or keyword, and with which
kind of shape. A second pass calls every initializer in each of these ways.
"""

import dataclasses
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import MAIN, OWN, ROWS
from flax import nnx
from marks import slow_but
from together import jointly

import jaxinit as ji

KEY = jax.random.key(0)
SIZE = 6
pytestmark = [
    pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated"),
    pytest.mark.filterwarnings("ignore:carry_init is provided in __init__"),
]
REQUIRED = {
    **dict.fromkeys(("features", "num_features", "in_features"), SIZE),
    **dict.fromkeys(("out_features", "hidden_features"), SIZE),
    "einsum_str": "...a,ab->...b",
    "kernel_shape": (SIZE, SIZE),
    "kernel_size": (3,),
    "lora_rank": 2,
    "num_embeddings": 5,
    "num_groups": 2,
    "num_heads": 2,
    "shape": (SIZE, SIZE),
    "use_running_average": True,
}
# Arguments named like initializers which are none.
NUMBERS = {"negative_slope_init"}


def is_initializer(name):
    return name.endswith(("_init", "initializer")) and name not in NUMBERS


def layers(room, base):
    """Yields the layers of a room that take initializers, with these arguments."""
    for name, layer in sorted(vars(room).items()):
        if isinstance(layer, type) and issubclass(layer, base):
            parameters = inspect.signature(layer.__init__).parameters
            if inits := [name for name in parameters if is_initializer(name)]:
                yield pytest.param(layer, inits, id=f"{room.__name__}.{name}")


def arguments(layer, rngs=None):
    parameters = inspect.signature(layer.__init__).parameters
    found = {name: REQUIRED[name] for name in parameters if name in REQUIRED}
    if "Einsum" not in layer.__name__:
        found.pop("shape", None)
    if "layer_instance" in parameters:
        inner = nn.Dense(SIZE) if rngs is None else nnx.Linear(SIZE, SIZE, rngs=rngs)
        found["layer_instance"] = inner
    if rngs is not None and "rngs" in parameters:
        found["rngs"] = rngs
    return found


def inputs(layer):
    if "Embed" in layer.__name__:
        return jnp.zeros((2,), jnp.int32)
    return jnp.zeros((2, 8, SIZE))


def linen_params(layer, inits):
    """Initializes a layer of Linen."""
    fields = {field.name for field in dataclasses.fields(layer)}
    module = layer(**arguments(layer), **inits)
    x = inputs(layer)
    if issubclass(layer, nn.recurrent.RNNCellBase):
        module = nn.RNN(module)
        x = jnp.zeros((2, 3, 8, SIZE)) if "kernel_size" in fields else x
    if "decode" in fields and layer is not nn.SelfAttention:
        return module.init({"params": KEY}, x, x)
    return module.init({"params": KEY}, x)


def nnx_state(layer, inits):
    """Builds a layer of NNX, and starts it if it is recurrent."""
    module = layer(**arguments(layer, nnx.Rngs(0)), **inits)
    if hasattr(module, "initialize_carry"):
        module.initialize_carry((2, SIZE), nnx.Rngs(1))
    return nnx.state(module)


def built(layer, inits):
    build = linen_params if issubclass(layer, nn.Module) else nnx_state
    return build(layer, inits)


CALLS: dict[str, tuple] = {}


def recorder(kind):
    """Returns an initializer that notes how it is called."""
    own = jax.nn.initializers.zeros

    def init(*args, **kwargs):
        forms = [type(arg).__name__ for arg in args[1:]], sorted(kwargs)
        bound = inspect.signature(own).bind(*args, **kwargs)
        shape = bound.arguments["shape"]
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        CALLS[f"{forms} {sizes} of {kind}"] = (args[1:], kwargs)
        return own(*args, **kwargs)

    return init


LINEN, NNX = list(layers(nn, nn.Module)), list(layers(nnx, nnx.Module))
USUAL = {nn.Dense, nn.Conv, nn.MultiHeadDotProductAttention, nn.LSTMCell, nn.Embed}
USUAL |= {nnx.Linear, nnx.Conv, nnx.GRUCell}
every_layer = pytest.mark.parametrize(
    ("layer", "inits"),
    [
        pytest.param(
            *one.values,
            id=one.id,
            marks=[pytest.mark.slow] * (one.values[0] not in USUAL),
        )
        for one in LINEN + NNX
    ],
)


def record():
    for layer, inits in (param.values for param in LINEN + NNX):
        inits = {name: recorder(name) for name in inits}
        jax.eval_shape(lambda layer=layer, inits=inits: built(layer, inits))


def test_layers_are_found():
    names = {param.id.removeprefix("flax.") for param in LINEN + NNX}
    some = "Dense DenseGeneral Conv ConvLocal ConvTranspose Embed LayerNorm BatchNorm "
    some += "GroupNorm RMSNorm InstanceNorm WeightNorm MultiHeadDotProductAttention "
    some += "Einsum LSTMCell OptimizedLSTMCell GRUCell MGUCell SimpleCell ConvLSTMCell"
    assert {f"linen.{name}" for name in some.split()} <= names
    some = "Linear LinearGeneral Einsum Conv ConvTranspose Embed LoRA LoRALinear "
    some += "LayerNorm BatchNorm GroupNorm RMSNorm MultiHeadAttention LSTMCell GRUCell"
    assert {f"nnx.{name}" for name in some.split()} <= names


BUILDERS = list({row.init.name: row for row in ROWS[::-1]}.values())


@jointly(MAIN, BUILDERS)
@pytest.mark.slow
def test_every_initializer_takes_every_call_of_flax(rows):
    record()
    assert len(CALLS) > 20
    inits = {row.init.name: row.init for row in rows}
    assert {row.init.name for row in BUILDERS} == set(OWN)
    taken = set()
    for args, kwargs in {repr(call): call for call in CALLS.values()}.values():
        bound = inspect.signature(jax.nn.initializers.zeros).bind(KEY, *args, **kwargs)
        shape, dtype = bound.arguments["shape"], bound.arguments.get("dtype")
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        for name, init in inits.items():

            def draw(key, init=init, args=args, kwargs=kwargs):
                return init(key, *args, **kwargs)

            try:
                out = jax.eval_shape(draw, KEY)
            except ValueError as error:  # of a shape that this initializer refuses
                assert str(error).startswith(f"{init!r}(key, shape=")
                with pytest.raises(ValueError, match="shape="):
                    init.moments(sizes)
                continue
            taken.add(name)
            assert (out.shape, out.dtype) == (sizes, np.dtype(dtype or np.float32))
    # Those whose shapes no layer above has: values of one shape, frames, four groups.
    others = {"blocks", "concatenated", "masked"}  # parts that make up an axis
    assert set(inits) - taken <= others | {"from_array", "stft", "dirac", "torch.dirac"}


@every_layer
def test_layers_start_with_our_initializers(layer, inits):
    if layer is nnx.WeightNorm:
        return  # Flax gives it no key, but a stream of keys
    kernels = {"kernel_init", "recurrent_kernel_init", "out_kernel_init"}
    kernels |= {"a_initializer", "b_initializer", "embedding_init"}
    ours = {n: ji.he_normal() if n in kernels else ji.normal(0.5) for n in inits}
    theirs = jax.nn.initializers
    expected = {
        n: theirs.he_normal() if n in kernels else theirs.normal(0.5) for n in inits
    }
    found = jax.eval_shape(lambda: built(layer, ours))
    peer = jax.eval_shape(lambda: built(layer, expected))
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, peer)


@every_layer
def test_builders_without_randomness_stand_in_for_jaxs(layer, inits):
    """Flax's defaults are functions such as zeros, passed without being called."""
    direct = jax.eval_shape(lambda: built(layer, dict.fromkeys(inits, ji.ones)))
    called = jax.eval_shape(lambda: built(layer, dict.fromkeys(inits, ji.ones())))
    assert jax.tree.map(jnp.shape, direct) == jax.tree.map(jnp.shape, called)


@pytest.mark.parametrize(
    "layer", slow_but([nnx.LoRA], [nn.DenseGeneral, nnx.GRUCell, nnx.LoRA])
)
def test_values_are_those_of_jax(layer):
    inits = [
        n for n in inspect.signature(layer.__init__).parameters if is_initializer(n)
    ]
    leaves = [
        jax.tree.leaves(
            jax.jit(
                lambda room=room: built(
                    layer, {n: room.normal(0.5) for n in inits if n != "carry_init"}
                )
            )()
        )
        for room in (ji, jax.nn.initializers)
    ]
    assert len(leaves[0]) >= 2
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)
