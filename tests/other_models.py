"""Models by other people: small configurations of what they publish.

`transformers` has the Flax models of Hugging Face up to version 4.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NAMES = ["gpt2", "bert", "t5", "vit", "llama", "clip"]
IDS = jnp.arange(16, dtype=jnp.int32).reshape(2, 8)
MASK = jnp.ones((2, 8), jnp.int32)
PLACES = jnp.broadcast_to(jnp.arange(8), (2, 8))
IMAGES = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


class Model(NamedTuple):
    """A model as `check` takes it, and what it is called with."""

    model: Any
    inputs: tuple[Any, ...]


def _clip(x, a_min=None, a_max=None):
    return jnp.clip(x, a_min, a_max)


class _Numpy:
    """`jax.numpy` with the names of arguments that T5's code of 2024 uses."""

    clip = staticmethod(_clip)

    def __getattr__(self, name):
        return getattr(jnp, name)


@functools.cache
def hugging_face():
    """Returns the Flax models of transformers, by name."""
    import transformers as hf
    from transformers.models.bert import modeling_flax_bert as bert
    from transformers.models.clip import modeling_flax_clip as clip
    from transformers.models.gpt2 import modeling_flax_gpt2 as gpt2
    from transformers.models.llama import modeling_flax_llama as llama
    from transformers.models.t5 import modeling_flax_t5 as t5
    from transformers.models.vit import modeling_flax_vit as vit

    t5.jnp = _Numpy()
    text = {"vocab_size": 50, "max_position_embeddings": 64}
    image = {"image_size": 32, "patch_size": 8}
    tokens = (IDS, MASK, PLACES)
    return {
        "gpt2": Model(
            gpt2.FlaxGPT2LMHeadModule(
                hf.GPT2Config(
                    n_layer=2, n_embd=32, n_head=2, vocab_size=50, n_positions=16
                )
            ),
            tokens,
        ),
        "bert": Model(
            bert.FlaxBertForSequenceClassificationModule(
                hf.BertConfig(**SMALL, **text, num_labels=3)
            ),
            (IDS, MASK, jnp.zeros_like(IDS), PLACES, None),
        ),
        "t5": Model(
            t5.FlaxT5ForConditionalGenerationModule(
                hf.T5Config(
                    d_model=32,
                    d_kv=16,
                    d_ff=64,
                    num_layers=2,
                    num_heads=2,
                    vocab_size=50,
                )
            ),
            (IDS, MASK, IDS, MASK),
        ),
        "vit": Model(
            vit.FlaxViTForImageClassificationModule(
                hf.ViTConfig(**SMALL, **image, num_labels=3)
            ),
            (IMAGES,),
        ),
        "llama": Model(
            llama.FlaxLlamaForCausalLMModule(hf.LlamaConfig(**SMALL, **text)), tokens
        ),
        "clip": Model(
            clip.FlaxCLIPModule(
                hf.CLIPConfig(
                    text_config={**SMALL, **text, "eos_token_id": 49},
                    vision_config={**SMALL, **image},
                    projection_dim=16,
                )
            ),
            (IDS, IMAGES, MASK, PLACES),
        ),
    }


def equinox_mlp():
    import equinox as eqx

    return Model(
        lambda key: eqx.nn.MLP(8, 3, 32, 3, key=key),
        (np.eye(8, dtype=np.float32)[0],),
    )


def haiku_transformer():
    import haiku as hk

    def forward(ids):
        x = hk.Embed(50, 32)(ids)
        for _ in range(2):
            y = hk.LayerNorm(-1, True, True)(x)
            init = hk.initializers.VarianceScaling()
            x += hk.MultiHeadAttention(2, 16, w_init=init)(y, y, y)
            y = hk.LayerNorm(-1, True, True)(x)
            x += hk.Linear(32)(jax.nn.gelu(hk.Linear(64)(y)))
        return hk.Linear(50)(hk.LayerNorm(-1, True, True)(x))

    return Model(hk.without_apply_rng(hk.transform(forward)), (IDS,))
