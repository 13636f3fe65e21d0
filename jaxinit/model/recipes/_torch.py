"""torch's defaults as rules."""

import math
from collections.abc import Mapping
from typing import Any

from jaxinit import initializers as init
from jaxinit import torch
from jaxinit._axes import fans
from jaxinit._initializer import Initializer
from jaxinit.model._rules import Rule
from jaxinit.model.recipes._form import axes, by_fans


def torch_default() -> list[Rule]:
    """As torch initialises its layers.

    Law: kernels and biases uniform on ±1 / sqrt(fan_in); embeddings N(0, 1); norms 1
    and 0. Attention (Flax's ``query``, ``key``, ``value``, ``out``): the first three
    uniform on ±sqrt(6 / (inputs + 3 outputs)), their biases and that of out 0.

    References:
      PyTorch. torch.nn.modules: reset_parameters of each layer.
      https://docs.pytorch.org/docs/stable/nn.html
    """

    def bias(path: str, leaf: Any, siblings: Mapping[str, Any]) -> Any:
        if "kernel" not in siblings:
            return 0.0
        shape = siblings["kernel"].shape
        return torch.bias(fans(shape, **axes(path, shape))[0])

    def packed(path: str, leaf: Any, siblings: Mapping[str, Any]) -> Initializer:
        inputs, *outputs = leaf.shape
        bound = math.sqrt(6 / (inputs + 3 * math.prod(outputs)))
        return init.uniform(low=-bound, high=bound)

    projections = [f"**/{name}" for name in ("query", "key", "value")]
    return [
        *((f"{name}/kernel", packed) for name in projections),
        *((f"{name}/bias", 0.0) for name in (*projections, "**/out")),
        ("kernel", by_fans(1 / 3, "fan_in", "uniform")),
        ("embedding", torch.embedding()),
        ("scale", 1.0),
        ("bias", bias),
    ]
