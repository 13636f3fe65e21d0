"""Low-rank adapters of weights that are loaded, and how they begin.

`attach` begins those of a whole model: ``attach(key, model, [("**/kernel", 8)],
"pissa")``. `lora`, `orthogonal`, `pissa`, `olora`, `mica` and `lora_ga` begin an
`Adapter` of one weight.

Example:
  A model of NNX whose layers are `nnx.LoRALinear` has its pairs filled:

  >>> from flax import nnx
  >>> dense = nnx.LoRALinear(64, 32, lora_rank=4, rngs=nnx.Rngs(0))
  >>> tuned = jaxinit.lora.attach(
  ...     jax.random.key(0), dense, [("kernel", 4)], "pissa").params
  >>> x = jnp.ones((1, 64))
  >>> bool(jnp.allclose(tuned(x), dense(x), atol=1e-5))
  True
"""

from jaxinit.lora._adapter import Adapter as Adapter
from jaxinit.lora._attach import Attached as Attached
from jaxinit.lora._attach import attach as attach
from jaxinit.lora._methods import lora as lora
from jaxinit.lora._methods import lora_ga as lora_ga
from jaxinit.lora._methods import mica as mica
from jaxinit.lora._methods import olora as olora
from jaxinit.lora._methods import orthogonal as orthogonal
from jaxinit.lora._methods import pissa as pissa
