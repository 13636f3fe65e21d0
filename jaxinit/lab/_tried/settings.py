"""Settings of a comparison: the one list of what is varied and what is held fixed.

A field of `Settings` holds all about a setting: its default, its rule, its help, and
its option of the command line. `compare`, the command line and the caption of the table
read the fields; none of them lists settings again.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar

import jax

from jaxinit import _check as check
from jaxinit._gain import ACTIVATIONS
from jaxinit._initializer import Initializer
from jaxinit.lab._tried._model import NORMS, Norm
from jaxinit.lab._tried._option import (
    Option,
    any_value,
    count,
    not_negative,
    one_of,
    or_none,
    rates,
    read_by,
    read_patience,
    setting,
    several,
    share,
)
from jaxinit.lab._tried._precision import Dtype, Platform, check_device, check_dtype
from jaxinit.lab._tried.losses import DEFAULTS, read_loss
from jaxinit.lab._tried.networks import NETWORKS
from jaxinit.lab._tried.optimizers import SCHEDULES, read_optimizer
from jaxinit.lab._tried.rules import Rules

_MOST_ROWS = 2**28  # of all batches together; their order is drawn beforehand
_MOST_STEPS = 2**31 - 1  # steps are counted in int32

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def _model(name: str, value: Any) -> Any:
    own = isinstance(value, str) and ":" in value
    return (
        value if own else check.choice((*NETWORKS, "package.module:Model"), model=value)
    )


def _device(name: str, value: Any) -> Any:
    check_device(value)
    return value


_COMPARED, NETWORK, _TRAINING = "what is compared", "network", "training"
DATA, MACHINE = "data and loss", "machine"


@dataclass(frozen=True)
class Settings:
    """What `compare` varies and what it holds fixed; checked on creation."""

    initializers: tuple[Initializer | Rules, ...] = dataclasses.field(
        metadata={
            "option": Option(
                help="an initializer of all kernels, such as "
                "\"he_normal(gain='gelu')\", or rules for a whole model, such as "
                '"recipes.fixup(6)" or "**/h/kernel: identity(); he_normal()"',
                group=_COMPARED,
                rule=several,
                flag="--init",
                metavar="SPEC",
                shown="a dozen, from zeros to orthogonal",
                repeated=True,
            )
        }
    )
    activation: str = setting(
        "relu",
        f"one of {', '.join(ACTIVATIONS)}",
        NETWORK,
        one_of(tuple(ACTIVATIONS)),
        notes="as in `jaxinit.gain`",
    )
    depth: int = setting(
        20,
        "layers or blocks",
        NETWORK,
        any_value,
        notes="2 or more for dense layers",
        shown=", ".join(
            dict.fromkeys(f"{k.depth} {k.noun}" for k in NETWORKS.values())
        ),
        fitted=True,
    )
    width: int = setting(
        64, "outputs of every layer but the last", NETWORK, count(2**20)
    )
    norm: Norm | Literal["post"] = setting(
        "none",
        "none, layer or batch, between each hidden layer and its activation; post "
        "stands behind each branch of a transformer",
        NETWORK,
        one_of((*NORMS, "post")),
    )
    seeds: int = setting(
        5,
        "seeds of the initial weights",
        _COMPARED,
        count(2**20),
        notes="seed i draws from ``jax.random.key(i)``",
    )
    steps: int = setting(400, "training steps", _TRAINING, count(_MOST_STEPS))
    learning_rates: tuple[float, ...] = setting(
        (3e-4, 1e-3, 3e-3),
        "a learning rate that every initializer is tried at",
        _COMPARED,
        rates,
        flag="--lr",
        read=float,
        metavar="RATE",
        shown="3e-4, 1e-3 and 3e-3",
        repeated=True,
    )
    optimizer: str = setting(
        "adam",
        "adam, adamw, lion, momentum, rmsprop, sgd, adam_then_sgd, or a call such as "
        '"adamw(weight_decay=0.01)"',
        _TRAINING,
        read_by(read_optimizer),
    )
    batch_size: int = setting(64, "rows per step", _TRAINING, count(2**31 - 1))
    target_loss: float = setting(
        0.5,
        "the training loss to count the steps to, in the unit of the loss",
        DATA,
        not_negative,
        metavar="LOSS",
        notes="nats for cross-entropy, nats a class for binary cross-entropy, weighted "
        "ones for focal, variances of the targets for squared errors, standard "
        "deviations for absolute ones",
        shown="0.5; half of chance with another loss than the task's default",
        fitted=True,
    )
    model: str = setting(
        "mlp",
        f"{', '.join(NETWORKS)}, or your own package.module:Model of Flax Linen or NNX",
        NETWORK,
        _model,
        notes="every kernel of two axes or more is drawn by the initializer",
    )
    devices: int = setting(
        1,
        "how many devices share the cells",
        MACHINE,
        count(2**31 - 1),
        notes="it changes results by rounding only",
    )
    schedule: str = setting(
        "constant",
        "of the learning rate: constant, cosine, warmup_cosine, steps or plateau",
        _TRAINING,
        one_of(SCHEDULES),
        notes="cosine falls to 0; warmup_cosine rises over a tenth of the steps first; "
        "steps has a tenth from the middle and a hundredth from three quarters on; "
        "plateau halves whenever the loss has not fallen for 20 steps",
        told=(1, ", {} schedule"),
    )
    clip: float = setting(
        0.0,
        "the largest norm of all gradients together; 0 for any",
        _TRAINING,
        not_negative,
        metavar="NORM",
        told=(2, ", clipped at {:g}"),
    )
    loss: str | None = setting(
        None,
        "cross_entropy, binary_cross_entropy, focal, or a call such as "
        '"focal(gamma=1.0)", for classes; squared or absolute for real targets',
        DATA,
        or_none(read_by(read_loss)),
        shown="cross_entropy, squared",
        usual=tuple(DEFAULTS.values()),
        told=(4, ", loss {}"),
    )
    dropout: float = setting(
        0.0,
        "share of hidden units that a step of training drops",
        NETWORK,
        share,
        metavar="RATE",
        notes="at least 0 and below 1; the masks are drawn from the step and the seed: "
        "equal seeds have equal ones",
        told=(5, ", dropout {:g}"),
    )
    early_stopping: int = setting(
        0,
        "stop a run after this many steps without a better loss on held-out training "
        "rows, and keep its best weights",
        _TRAINING,
        count(_MOST_STEPS, 0),
        read=read_patience,
        metavar="PATIENCE",
        notes="0 for none; a fifth of the training rows, 1000 at most, is held out, "
        "every cell keeps the parameters of its best block, and cells that diverge "
        "stop at once",
        shown="train to the end",
        told=(6, ", stopped after {} steps without a better validation"),
    )
    device: Platform | None = setting(
        None,
        "cpu, gpu or tpu",
        MACHINE,
        _device,
        metavar="PLATFORM",
        shown="the one that JAX prefers",
    )
    dtype: Dtype = setting(
        "float32",
        "what networks compute in: float32, bfloat16 or float16 (parameters and loss "
        "stay float32), or float64 for all",
        MACHINE,
        any_value,
        notes="mixed precision for 16 bits, where gradients in float16 are not scaled; "
        "float64 needs jax_enable_x64; initial weights are the same in every dtype; a "
        "model of your own computes in the dtype that it is written in",
        told=(3, " in {}"),
    )
    chunk: int | None = setting(
        None,
        "training runs that a device holds and computes at once",
        MACHINE,
        or_none(count(2**31 - 1)),
        read=int,
        metavar="CELLS",
        notes="the others wait in the memory of the host where the device's would not "
        "hold all; it changes results by rounding only",
        shown="as many as its memory holds; on a CPU a few",
    )

    def __post_init__(self) -> None:
        """Raises `Unfit` for the first setting that breaks its rule."""
        for name, option in OPTIONS.items():
            object.__setattr__(self, name, option.rule(name, getattr(self, name)))
        if self.norm == "post" and self.model != "transformer":
            raise check.Unfit("post stands in a transformer only.", norm=self.norm)
        count(10_000, 2 if self.model == "mlp" else 1)("depth", self.depth)
        if self.steps * self.batch_size > _MOST_ROWS:
            rule = f"steps times batch_size must be {_MOST_ROWS} rows or below."
            raise check.Unfit(rule, steps=self.steps)
        check_dtype(self.dtype, self.model)
        here = len(jax.devices(self.device))
        if self.devices > here:
            rule = f"there are {here} devices only."
            raise check.Unfit(rule, devices=self.devices)
        if jax.process_count() > 1 and self.devices < here:
            rule = f"{jax.process_count()} processes train on all of their "
            rule += f"{here} devices."
            raise check.Unfit(rule, devices=self.devices)
        for init in self.initializers if self.model == "mlp" else ():
            if isinstance(init, Rules) and init.structure is None:
                rule = "rules are for other models: all layers of mlp are drawn alike."
                raise check.Unfit(rule, initializers=init)

    @property
    def random_training(self) -> bool:
        """Whether a seed changes more than the initial weights.

        Dropout draws masks, and a user's own model may draw whatever it likes.
        """
        return bool(self.dropout) or ":" in self.model

    def pass_to(self, function: Callable[..., T], **more: Any) -> T:
        """Calls a function with the settings that its parameters name, and with more.

        So a setting reaches the function that uses it by its name alone.
        """
        names = inspect.signature(function).parameters
        own = {name: value for name, value in vars(self).items() if name in names}
        return function(**own | more)


class Given(TypedDict, total=False):
    """The settings that `compare` takes by name, as type checkers see them."""

    activation: str
    depth: int | None
    width: int
    norm: str
    seeds: int
    steps: int
    learning_rates: Sequence[float]
    optimizer: str
    batch_size: int
    target_loss: float | None
    model: str
    devices: int
    schedule: str
    clip: float
    loss: str | None
    dropout: float
    early_stopping: int
    device: str | None
    dtype: str
    chunk: int | None


OPTIONS: dict[str, Option] = {
    field.name: field.metadata["option"] for field in dataclasses.fields(Settings)
}


def spell_out(function: F, without: Collection[str] = ()) -> F:
    """Shows a function's ``**settings`` one by one in its signature, all but some."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    settings = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if OPTIONS[field.name].fitted else field.default,
            annotation=Given.__annotations__[field.name],
        )
        for field in dataclasses.fields(Settings)
        if field.name in Given.__annotations__ and field.name not in without
    ]
    changed = signature.replace(parameters=[*own, *settings])
    function.__signature__ = changed  # type: ignore[attr-defined]  # as inspect reads it
    return function


def _document() -> str:
    """Writes the section of the documentation about the settings."""
    lines = ["", "", "    Attributes:"]
    for field in dataclasses.fields(Settings):
        option = OPTIONS[field.name]
        parts = [f"{field.name}: {option.help}", option.notes]
        if field.default is None or option.fitted:
            parts.append(f"by default {option.shown}")
        words = "; ".join(part for part in parts if part) + "."
        lines += textwrap.wrap(
            words, 88, initial_indent=" " * 6, subsequent_indent=" " * 8
        )
    return "\n".join([*lines, "    "])


if Settings.__doc__ is not None:  # python -OO drops docstrings
    Settings.__doc__ += _document()
