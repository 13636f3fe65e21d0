"""Tables of parameterizations: factors on what the base model has, by kind and growth.

All is relative to the base: m is how much a width grows, m_in that of a kernel's
inputs, m_out that of its outputs, and every factor is 1 where they are 1.

A weight w that meets data as θ w trains as w' = θ w does without the factor, if w' has
θ times the standard deviation, θ times Adam's learning rate and θ^2 times that of SGD,
and ε / θ (abc-symmetry; Yang and others, Tensor Programs V, 2022,
https://arxiv.org/abs/2203.03466). So a parameterization is two choices: what the
weights do in effect, and which factors θ the model applies. muP in its three forms,
mean field and u-muP are one table in effect but for few cells, and so are standard and
NTK. In effect:

=========  =========  =========  =======  =============  ==================  ==========
kind       muP: std   Adam       ε        standard: std  Adam, full (none)   ε
=========  =========  =========  =======  =============  ==================  ==========
embedding  1          1          1/m_out  1              1 (1)               m_out^-1/2
input      1          1          1/m_out  1              1 (1)               m_out^-1/2
vector     1          1          1/m_out  1              1 (1)               m_out^-1/2
hidden     m_in^-1/2  1/m_in     1/m_out  m_in^-1/2      1/m_in (m_in^-1/2)  m_out^-1/2
readout    1/m_in     1/m_in     1        m_in^-1/2      1/m_in (m_in^-1/2)  1
=========  =========  =========  =======  =============  ==================  ==========

Adam's columns are the papers': muP's of Tensor Programs V, standard's of Everett and
others (Scaling Exponents Across Parameterizations and Optimizers, 2024,
https://arxiv.org/abs/2407.05872). Derived here are:

- ε, which is as large as the entries of the gradient: with a readout of size 1/m, or
  m^-1/2, every gradient behind it is so. Dey and others (CompleteP, 2025,
  https://arxiv.org/abs/2505.01618, equation 40) have the same for muP.
- SGD's learning rate: Adam's over the size of the gradient. It gives the cells of
  Tensor Programs V; those of all others are derived.
- Weight decay: one over Adam's factor for the width, so that learning rate times decay
  stays. CompleteP has that for hidden weights, all that differ in form 8 of muP.
- Muon, for updates whose spectral norm is the learning rate: sqrt(m_out / m_in), from
  the spectral condition (Yang, Simon, Bernstein, 2023,
  https://arxiv.org/abs/2310.17813). Embeddings, vectors and readouts are left to Adam,
  and have its factors.
"""

import dataclasses
from typing import Literal

from jaxinit.scaling._muon import is_matrix
from jaxinit.scaling._row import ScaledParameter

Alignment = Literal["full", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factors:
    """Factors on what the base has.

    Attributes:
      std: on the standard deviation of initial weights.
      forward: θ, by which the model multiplies what the weight makes.
      adam: on the learning rate of Adam and other optimizers of the sign.
      muon: on the learning rate of Muon.
      eps: on Adam's ε, which is as large as the entries of the gradient.
      decay: on the weight decay that is multiplied by the learning rate.
      learns: how much more a step of Adam does to the model, by choice: where no choice
        is made, as much as in the base.
    """

    std: float = 1.0
    forward: float = 1.0
    adam: float = 1.0
    muon: float = 1.0
    eps: float = 1.0
    decay: float = 1.0
    learns: float = 1.0

    @property
    def sgd(self) -> float:
        """The factor on the learning rate of SGD."""
        return self.adam / self.eps

    def expose(self, theta: float) -> "Factors":
        """Returns the same in effect, where the model multiplies by θ."""
        return dataclasses.replace(
            self,
            std=self.std / theta,
            forward=self.forward * theta,
            adam=self.adam / theta,
            muon=self.muon / theta,
            eps=self.eps * theta,
            decay=self.decay * theta,
        )

    def absorb(self, theta: float) -> "Factors":
        """Returns the same in effect, without a factor θ of the model."""
        return self.expose(1 / theta)

    def deepen(self, depth: float, alpha: float) -> "Factors":
        """Returns the factors in branches that the model multiplies by depth^-alpha.

        A branch's gradient falls by that factor. What all branches add up to must
        change as much as before: depth · depth^-alpha · Adam's step.

        Adam and ε: Dey and others, CompleteP, table 1; with alpha = 1/2 also Yang and
        others, Tensor Programs VI, 2023, https://arxiv.org/abs/2310.02244. SGD, by the
        gradient, and Muon are derived.
        """
        step = depth ** (alpha - 1)
        return dataclasses.replace(
            self,
            adam=self.adam * step,
            muon=self.muon * step,
            eps=self.eps * depth**-alpha,
        )


def _of_width(row: ScaledParameter, std: float, adam: float, eps: float) -> Factors:
    """Returns factors with those of Muon and of decay, which follow."""
    muon = (row.width_out / row.width_in) ** 0.5 if is_matrix(row) else adam
    return Factors(std=std, adam=adam, muon=muon, eps=eps, decay=1 / adam)


def _feature_learning(row: ScaledParameter) -> Factors:
    """Returns what muP and its kin do in effect."""
    m_in, m_out = row.width_in, row.width_out
    match row.kind:
        case "hidden":
            return _of_width(row, m_in**-0.5, 1 / m_in, 1 / m_out)
        case "readout":
            return _of_width(row, 1 / m_in, 1 / m_in, 1.0)
    return _of_width(row, 1.0, 1.0, 1 / m_out)


def mup(row: ScaledParameter, form: Literal[3, 8, 9] = 8) -> Factors:
    """The maximal update parameterization, by table 3, 8 or 9 of Tensor Programs V.

    Table 3 has no factors; table 8 multiplies the readout by 1 / m_in; table 9 also the
    inputs and all vectors by sqrt(m_out), and the readout by m_in^-1/2.
    """
    factors = _feature_learning(row)
    if row.kind == "readout" and form != 3:
        return factors.expose(row.width_in ** (-1 if form == 8 else -0.5))
    if form == 9 and row.kind in ("embedding", "input", "vector"):
        return factors.expose(row.width_out**0.5)
    return factors


def mean_field(row: ScaledParameter, alignment: Alignment = "full") -> Factors:
    """The mean-field parameterization, as Everett and others have it.

    All weights keep their standard deviation; the model multiplies hidden products by
    m_in^-1/2 and the readout by 1 / m_in. With full alignment it is muP in effect.
    """
    factors = _feature_learning(row)
    theta = {"hidden": row.width_in**-0.5, "readout": 1 / row.width_in}
    if alignment == "none" and row.kind in theta:
        adam = row.width_in**-0.5
        factors = dataclasses.replace(factors, adam=adam, decay=1 / adam)
        if not is_matrix(row):
            factors = dataclasses.replace(factors, muon=adam)
    return factors.expose(theta.get(row.kind, 1.0))


def standard(row: ScaledParameter, alignment: Alignment = "full") -> Factors:
    """The standard parameterization, with learning rates by layer (Everett and others).

    Standard deviations m_in^-1/2 of hidden weights and readouts. Their Adam rates are
    1 / m_in where updates are aligned with activations, which is full alignment, and
    m_in^-1/2 where they are not.
    """
    m_in, m_out = row.width_in, row.width_out
    if row.kind in ("hidden", "readout"):
        adam = m_in ** (-1 if alignment == "full" else -0.5)
        eps = m_out**-0.5 if row.kind == "hidden" else 1.0
        return _of_width(row, m_in**-0.5, adam, eps)
    return _of_width(row, 1.0, 1.0, m_out**-0.5)


def ntk(row: ScaledParameter, alignment: Alignment = "full") -> Factors:
    """The parameterization of the neural tangent kernel, as Everett and others have it.

    Standard in effect: all weights keep their standard deviation, and the model
    multiplies hidden products and the readout by m_in^-1/2.
    """
    multiplied = row.kind in ("hidden", "readout")
    return standard(row, alignment).expose(row.width_in**-0.5 if multiplied else 1.0)


def u_mup(row: ScaledParameter) -> Factors:
    """The factors of u-muP that depend on width, without its unit-scaled operations.

    All weights keep their standard deviation; the model multiplies hidden products by
    m_in^-1/2 and the readout by 1 / m_in; embeddings have Adam's rate times m_out^-1/2,
    by which they learn less as the width grows: the authors found it to transfer, and
    give no theory. Blake and others, u-muP, 2024, https://arxiv.org/abs/2407.17465.
    """
    factors = _feature_learning(row)
    if row.kind == "embedding":
        adam = row.width_out**-0.5
        own = _of_width(row, 1.0, adam, factors.eps)
        return dataclasses.replace(own, learns=adam)
    theta = {"hidden": row.width_in**-0.5, "readout": 1 / row.width_in}
    return factors.expose(theta.get(row.kind, 1.0))


def spectral(row: ScaledParameter) -> Factors:
    """Factors by the spectral condition, from the fans of each kernel.

    Law: std (1 / sqrt(fan_in)) · min(1, sqrt(fan_out / fan_in)), learning rates of SGD
    in proportion to fan_out / fan_in, of Adam to 1 / fan_in. One row of an embedding
    is its input, so that its fan_in is 1, and so is that of a vector. Yang, Simon,
    Bernstein, A Spectral Condition for Feature Learning, 2023,
    https://arxiv.org/abs/2310.17813, parametrization 1.
    """
    if row.kind in ("embedding", "vector"):
        return _of_width(row, 1.0, 1.0, 1 / row.width_out)
    sizes = row.traced.fans, row.traced_base.fans
    (fan_in, fan_out), (base_in, base_out) = (size or (1.0, 1.0) for size in sizes)

    def spread(fan_in: float, fan_out: float) -> float:
        return float(min(1, (fan_out / fan_in) ** 0.5) / fan_in**0.5)

    adam, eps = base_in / fan_in, base_out / fan_out
    if row.traced.groups != row.traced_base.groups:  # as of a depthwise convolution
        eps = 1 / row.width_out
    return Factors(
        std=spread(fan_in, fan_out) / spread(base_in, base_out),
        adam=adam,
        muon=(adam / eps) ** 0.5 if is_matrix(row) else adam,
        eps=eps,
        decay=1 / adam,
    )
