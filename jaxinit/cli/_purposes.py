"""What builders are for: the groups of ``jaxinit list`` and of the page of builders."""

from collections.abc import Iterable
from typing import NamedTuple


class Purpose(NamedTuple):
    """A group of builders.

    Attributes:
      title: the heading.
      about: one sentence for the page.
      names: of the builders; "torch." is every builder of that room.
    """

    title: str
    about: str
    names: str


# A builder stands in one group, that where users look for it first.
PURPOSES = (
    Purpose(
        "Arrays of any shape",
        "Laws and values that do not depend on fans: for biases, gains, embeddings, "
        "tables.",
        "constant from_array linspace log_uniform normal ones selected "
        "truncated_normal uniform zeros",
    ),
    Purpose(
        "Dense layers",
        "Most of them are for kernels of convolutions as well.",
        "convex convex_bias glorot_normal glorot_uniform hadamard he_normal "
        "he_uniform identity lecun_normal lecun_uniform orthogonal permutation "
        "scaled_uniform_orthogonal sparse spectral uniform_unit_scaling "
        "variance_scaling",
    ),
    Purpose(
        "Convolutions",
        "Kernels (*window, inputs, outputs) that no dense layer has.",
        "bilinear conv_orthogonal delta_orthogonal dirac stft",
    ),
    Purpose(
        "Transformers",
        "Positions and residual branches. For kernels of attention see dense layers, "
        "with `in_axis` and `out_axis`, and `concatenated` for queries, keys and "
        "values in one.",
        "layer_scale sinusoidal",
    ),
    Purpose(
        "Recurrent layers",
        "Biases of gates. For recurrent kernels see `orthogonal` and `identity`, for "
        "gates in one kernel `concatenated`.",
        "chrono lstm_bias",
    ),
    Purpose(
        "State spaces and linear recurrences",
        "The parameters of Mamba, S4D, HiPPO, LRU and RG-LRU, of `jaxinit.ssm`.",
        "ssm.",
    ),
    Purpose(
        "Networks of coordinates",
        "Neural fields and implicit representations.",
        "fan_uniform fourier_features siren",
    ),
    Purpose(
        "Structure, from other initializers",
        "They take initializers and stack, join, mask or change what those draw. "
        "`init * 0.5`, `init + 1` and the like work on every initializer.",
        "blocks centered concatenated looks_linear masked normalized repeated stacked "
        "transposed",
    ),
    Purpose(
        "torch",
        "Every function of `torch.nn.init`, and the defaults of torch's layers, as "
        "`jaxinit.torch.linear()`. They do not need torch.",
        "torch.",
    ),
)
_PURPOSE_OF = {name: one.title for one in PURPOSES for name in one.names.split()}


def group(names: Iterable[str]) -> dict[str, list[str]]:
    """Sorts names of builders by the title of their purpose; users' own come last."""
    groups: dict[str, list[str]] = {one.title: [] for one in PURPOSES}
    for name in sorted(names):
        room, dot, _ = name.rpartition(".")
        title = _PURPOSE_OF.get(room + dot if dot else name, "Your own")
        groups.setdefault(title, []).append(name)
    return {title: members for title, members in groups.items() if members}
