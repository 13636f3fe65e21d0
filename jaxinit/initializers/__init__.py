"""Builders, one file per family."""

from jaxinit.initializers._calls import haiku as haiku
from jaxinit.initializers._calls import nd as nd
from jaxinit.initializers._changed import centered as centered
from jaxinit.initializers._changed import masked as masked
from jaxinit.initializers._changed import normalized as normalized
from jaxinit.initializers._changed import repeated as repeated
from jaxinit.initializers._changed import transposed as transposed
from jaxinit.initializers._constant import constant as constant
from jaxinit.initializers._constant import from_array as from_array
from jaxinit.initializers._constant import layer_scale as layer_scale
from jaxinit.initializers._constant import ones as ones
from jaxinit.initializers._constant import zeros as zeros
from jaxinit.initializers._convex import convex as convex
from jaxinit.initializers._convex import convex_bias as convex_bias
from jaxinit.initializers._convolution import conv_orthogonal as conv_orthogonal
from jaxinit.initializers._coordinates import fan_uniform as fan_uniform
from jaxinit.initializers._coordinates import fourier_features as fourier_features
from jaxinit.initializers._coordinates import sinusoidal as sinusoidal
from jaxinit.initializers._coordinates import siren as siren
from jaxinit.initializers._distribution import log_uniform as log_uniform
from jaxinit.initializers._distribution import normal as normal
from jaxinit.initializers._distribution import truncated_normal as truncated_normal
from jaxinit.initializers._distribution import uniform as uniform
from jaxinit.initializers._identity import dirac as dirac
from jaxinit.initializers._identity import identity as identity
from jaxinit.initializers._orthogonal import delta_orthogonal as delta_orthogonal
from jaxinit.initializers._orthogonal import orthogonal as orthogonal
from jaxinit.initializers._orthogonal import (
    scaled_uniform_orthogonal as scaled_uniform_orthogonal,
)
from jaxinit.initializers._parts import blocks as blocks
from jaxinit.initializers._parts import concatenated as concatenated
from jaxinit.initializers._parts import looks_linear as looks_linear
from jaxinit.initializers._presets import glorot_normal as glorot_normal
from jaxinit.initializers._presets import glorot_uniform as glorot_uniform
from jaxinit.initializers._presets import he_normal as he_normal
from jaxinit.initializers._presets import he_uniform as he_uniform
from jaxinit.initializers._presets import kaiming_normal as kaiming_normal
from jaxinit.initializers._presets import kaiming_uniform as kaiming_uniform
from jaxinit.initializers._presets import lecun_normal as lecun_normal
from jaxinit.initializers._presets import lecun_uniform as lecun_uniform
from jaxinit.initializers._presets import xavier_normal as xavier_normal
from jaxinit.initializers._presets import xavier_uniform as xavier_uniform
from jaxinit.initializers._recurrent import chrono as chrono
from jaxinit.initializers._recurrent import lstm_bias as lstm_bias
from jaxinit.initializers._signal import bilinear as bilinear
from jaxinit.initializers._signal import stft as stft
from jaxinit.initializers._sparse import sparse as sparse
from jaxinit.initializers._stacked import stacked as stacked
from jaxinit.initializers._tables import hadamard as hadamard
from jaxinit.initializers._tables import linspace as linspace
from jaxinit.initializers._tables import permutation as permutation
from jaxinit.initializers._tables import selected as selected
from jaxinit.initializers._variance_scaling import spectral as spectral
from jaxinit.initializers._variance_scaling import (
    uniform_unit_scaling as uniform_unit_scaling,
)
from jaxinit.initializers._variance_scaling import variance_scaling as variance_scaling
