"""Mixtures of experts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from architecture import Architecture, data, ids, make
from blocks import HEAD, NORMS, TABLE_OF_TOKENS, norm

IDS = (ids(3, 5),)


class Experts(nn.Module):
    """A mixture of experts: all tokens by all experts, weighted by a router."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(20, 12, name="table")(tokens)
        h = norm()(x)
        weights = nn.softmax(nn.Dense(4, use_bias=False, name="router")(h))
        normal = nn.initializers.normal()
        up = self.param("up", normal, (4, 12, 48))
        down = self.param("down", normal, (4, 48, 12))
        y = nn.gelu(jnp.einsum("bld,edf->blef", h, up))
        y = jnp.einsum("blef,efd->bled", y, down)
        x = x + jnp.einsum("bled,ble->bld", y, weights)
        return nn.Dense(20, name="head")(norm()(x))


def call_ragged(p, x):
    """Experts of sorted tokens, in one product with blocks of rows."""
    x = x @ p["stem"]
    logits = x @ p["router"]
    expert = jnp.argmax(logits, -1)
    order = jnp.argsort(expert)
    sizes = jnp.bincount(expert, length=4)
    h = jax.nn.silu(jax.lax.ragged_dot(x[order], p["gate"], sizes))
    h = h * jax.lax.ragged_dot(x[order], p["up"], sizes)
    y = jax.lax.ragged_dot(h, p["down"], sizes)
    y = jnp.zeros_like(y).at[order].set(y)
    chosen = jnp.take_along_axis(jax.nn.softmax(logits), expert[:, None], -1)
    return (x + y * chosen) @ p["head"]


class Switched(nn.Module):
    """Experts with a capacity: tokens are sent to places by one-hot products."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12, name="stem")(x)
        weights = nn.softmax(nn.Dense(4, name="router")(x))
        chosen = jax.nn.one_hot(weights.argmax(-1), 4)
        place = jnp.cumsum(chosen, 0) * chosen - 1
        send = jax.nn.one_hot(place.astype(jnp.int32), 3) * chosen[..., None]
        normal = nn.initializers.normal()
        up = self.param("up", normal, (4, 12, 48))
        down = self.param("down", normal, (4, 48, 12))
        y = jnp.einsum("tec,td->ecd", send, x)
        y = nn.relu(jnp.einsum("ecd,edf->ecf", y, up))
        y = jnp.einsum("ecf,efd->ecd", y, down)
        back = send * weights[..., None]
        return nn.Dense(5, name="head")(x + jnp.einsum("tec,ecd->td", back, y))


EXPERTS = {
    # Experts are independent weights, stacked; the router is a factor of the branch.
    "experts, all by einsum": Architecture(
        Experts(),
        IDS,
        {
            **TABLE_OF_TOKENS,
            "*/router/kernel": ("hidden", (12, 4)),
            "up": ("hidden", (12, 48)),
            "down": ("residual", (48, 12)),
            **HEAD,
            **NORMS,
        },
        branches=1,
    ),
    "experts, ragged_dot": Architecture(
        (
            make(
                stem=(8, 12),
                router=(12, 4),
                gate=(4, 12, 48),
                up=(4, 12, 48),
                down=(4, 48, 12),
                head=(12, 5),
            ),
            call_ragged,
        ),
        (data(10, 8),),
        {
            "stem": ("input", (8, 12)),
            "router": ("hidden", (12, 4)),
            "gate": ("hidden", (12, 48)),
            "up": ("hidden", (12, 48)),
            "down": ("residual", (48, 12)),
            "head": ("readout", (12, 5)),
        },
        branches=1,
    ),
    "experts, with a capacity": Architecture(
        Switched(),
        (data(10, 8),),
        {
            "*/stem/kernel": ("input", (8, 12)),
            "*/router/kernel": ("hidden", (12, 4)),
            "up": ("hidden", (12, 48)),
            "down": ("residual", (48, 12)),
            "*/head/kernel": ("readout", (12, 5)),
            "*/bias": "bias",
        },
        branches=1,
    ),
}
