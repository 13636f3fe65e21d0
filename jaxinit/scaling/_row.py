"""What a parameterization says of one parameter of the target model."""

import dataclasses
from collections.abc import Mapping

from jaxinit._structure.result import TracedParameter


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledParameter:
    """How a parameter of the target differs from the one it stands for in the base.

    All numbers are factors on what the base model has, so they are 1 where nothing
    grows.

    Attributes:
      path: its path in the target model.
      base: the path in the base model of the parameter that it stands for; where depth
        grows, several layers of the target stand for one.
      traced: its row in the structure of the target.
      traced_base: the row of `base` in the structure of the base.
      kind: what it counts as: "embedding", "input", "hidden", "readout" or "vector".
      narrow: whether it counts as a readout for its growth alone: it makes few features
        from many within the model, and Muon updates it, as it does in the base.
      in_block: whether it lies in a residual branch.
      width_in: how much the axes grow that inputs run along and that are widths: 1 for
        the features of the data.
      width_out: the same for outputs: 1 for the classes of a readout.
      depth: how much the number of residual branches grows, for all alike.
      grown: how much each axis of it grows that does, by name, such as
        ``{"width in": 4.0, "width out": 4.0, "layers": 2.0}``.
      std: on the standard deviation of the initial weights.
      forward: on what it makes in the forward pass; 1 where init and rates absorb it.
      lr: on the learning rate, for each of "sgd", "adam" (AdamW, Lion and other
        optimizers of the sign) and "muon".
      eps: on Adam's ε.
      decay: on the weight decay of AdamW, where it is multiplied by the learning rate.
      absorbed: the factor of its residual branch, or of attention, that it has in place
        of the model: what it makes is smaller by that, by right.
      learns: how much more, or less, a step of Adam does to the model by the choice of
        the parameterization: 1 but for embeddings of u-muP.
    """

    path: str
    base: str
    traced: TracedParameter
    traced_base: TracedParameter
    kind: str
    in_block: bool
    narrow: bool = False
    width_in: float = 1.0
    width_out: float = 1.0
    depth: float = 1.0
    grown: Mapping[str, float] = dataclasses.field(default_factory=dict)
    std: float = 1.0
    forward: float = 1.0
    lr: Mapping[str, float] = dataclasses.field(default_factory=dict)
    eps: float = 1.0
    decay: float = 1.0
    absorbed: float = 1.0
    learns: float = 1.0
