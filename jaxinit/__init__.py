"""jaxinit: chooses, draws and checks the initial weights of JAX models."""

from jaxinit import _watch as _watch  # answers Ctrl-C while JAX is imported

# isort: split
import typing as _typing

from jaxinit import lora as lora
from jaxinit import scaling as scaling
from jaxinit import ssm as ssm
from jaxinit import torch as torch
from jaxinit._axes import axes as axes
from jaxinit._axes import fans as fans
from jaxinit._caches import clear_caches as clear_caches
from jaxinit._calibrate.calibrate import calibrate as calibrate
from jaxinit._calibrate.calibration import CalibrationReport as CalibrationReport
from jaxinit._calibrate.tune import tune as tune
from jaxinit._calibrate.tuning import TuningReport as TuningReport
from jaxinit._check import suggestion as _suggestion
from jaxinit._gain import gain as gain
from jaxinit._initializer import Initializer as Initializer
from jaxinit._initializer import Moments as Moments
from jaxinit._initializer import initializer as initializer
from jaxinit._spec import parse as parse
from jaxinit._structure.result import Structure as Structure
from jaxinit._structure.structure import structure as structure
from jaxinit.initializers import *  # noqa: F403
from jaxinit.model import describe as describe
from jaxinit.model import jit_init as jit_init
from jaxinit.model import preview as preview
from jaxinit.model import recipes as recipes
from jaxinit.model import reinit as reinit
from jaxinit.signal import check as check
from jaxinit.signal import recommend as recommend

_ROOMS = ("lab", "testing")  # imported when first used: they cost more than JAX

# A type checker must not see __getattr__: it would accept every name.
if _typing.TYPE_CHECKING:
    from jaxinit import lab as lab
    from jaxinit import testing as testing
else:
    from importlib import import_module as _import_module

    def __getattr__(name: str) -> _typing.Any:
        if name in _ROOMS:
            return _import_module(f"jaxinit.{name}")
        said = f"module 'jaxinit' has no attribute {name!r}.{_cure(name)}"
        raise AttributeError(said)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})


def _cure(name: str) -> str:
    """Suggests a name: one of `torch` or `recipes`, or the nearest of our own."""
    if name.startswith("_"):  # Python and notebooks ask for these
        return ""
    for room in ("torch", "recipes"):
        word = name.removesuffix("_") if room == "torch" else name
        if callable(getattr(globals()[room], word, None)):
            return f" Did you mean 'jaxinit.{room}.{word}'?"
    words = [*_ROOMS, *(word for word in globals() if not word.startswith("_"))]
    return _suggestion(name, words)
