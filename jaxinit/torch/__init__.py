"""torch's initializers by their names, and the defaults of its layers.

Each function of `torch.nn.init` stands here without its underscore, with torch's
arguments, defaults and meaning, as a builder: ``kaiming_uniform_(w, a=1)`` becomes
``jaxinit.torch.kaiming_uniform(a=1)(key, shape)``. Shapes are those of JAX, (inputs,
outputs) or (*window, inputs, outputs); with ``layout="torch"`` they are torch's,
(outputs, inputs, *window). The laws are torch's, the random numbers are JAX's.

The layers' defaults: `linear` and `conv` for kernels, `bias`, `conv_transpose`,
`embedding`, `rnn` (`lstm`, `gru`) and `attention`.
"""

from jaxinit._check import suggestion as _suggestion
from jaxinit.torch._fans import calculate_gain as calculate_gain
from jaxinit.torch._fans import kaiming_normal as kaiming_normal
from jaxinit.torch._fans import kaiming_uniform as kaiming_uniform
from jaxinit.torch._fans import xavier_normal as xavier_normal
from jaxinit.torch._fans import xavier_uniform as xavier_uniform
from jaxinit.torch._laws import constant as constant
from jaxinit.torch._laws import normal as normal
from jaxinit.torch._laws import ones as ones
from jaxinit.torch._laws import trunc_normal as trunc_normal
from jaxinit.torch._laws import uniform as uniform
from jaxinit.torch._laws import zeros as zeros
from jaxinit.torch._layers import attention as attention
from jaxinit.torch._layers import bias as bias
from jaxinit.torch._layers import conv as conv
from jaxinit.torch._layers import conv_transpose as conv_transpose
from jaxinit.torch._layers import embedding as embedding
from jaxinit.torch._layers import gru as gru
from jaxinit.torch._layers import linear as linear
from jaxinit.torch._layers import lstm as lstm
from jaxinit.torch._layers import rnn as rnn
from jaxinit.torch._structure import dirac as dirac
from jaxinit.torch._structure import eye as eye
from jaxinit.torch._structure import orthogonal as orthogonal
from jaxinit.torch._structure import sparse as sparse


def __getattr__(name: str) -> None:
    if name.endswith("_") and name[:-1] in globals():
        cure = f" Nothing is filled in place: write {name[:-1]}(...)(key, shape)."
    else:
        cure = _suggestion(
            name, [word for word in globals() if not word.startswith("_")]
        )
    raise AttributeError(f"module 'jaxinit.torch' has no attribute {name!r}.{cure}")
