"""One of two processes that fill a model together; see test_model."""

import sys

import jax

port, rank, directory = sys.argv[1:]
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

sys.path.append(str(__import__("pathlib").Path(__file__).parents[1]))

import jaxinit  # noqa: E402
from bench import models  # noqa: E402


def init(key):
    """Makes the model."""
    return models.GPT(3, 8, 2, 16, 8).init(key, jnp.zeros((1, 4), jnp.int32))


mesh = jax.make_mesh((2,), ("model",))


def place(leaf):
    """Cuts the last axis, where it can be cut."""
    cut = not leaf.shape[-1] % 2
    spec = [*[None] * (leaf.ndim - 1), "model"] if cut else []
    return NamedSharding(mesh, PartitionSpec(*spec))


key = jax.random.key(7)
shardings = jax.tree.map(place, jax.eval_shape(init, key))
params = jaxinit.jit_init(init, out_shardings=shardings)(key)
found = {
    jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(
        leaf.addressable_shards[0].data
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
}
np.savez(f"{directory}/{rank}.npz", **found)
