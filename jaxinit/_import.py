"""Imports that may fail: packages of an extra, and objects of users."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from jaxinit import _check as check


@contextlib.contextmanager
def explain_missing(call: str, extra: str) -> Iterator[None]:
    """Names the extra of jaxinit that brings a package, if an import lacks it.

    Args:
      call: what needs the package.
      extra: as pip spells it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "jaxinit").partition(".")[0]
        if package == "jaxinit":  # no extra brings a module of ours
            raise
        message = f"{call}: needs {package}. Run pip install 'jaxinit[{extra}]'."
        raise ModuleNotFoundError(message, name=package) from None


def load(spec: str) -> Any:
    """Imports an object by its name, ``package.module:Model``.

    Args:
      spec: the module, a colon, and the name of the object in it, which may have dots.

    Raises:
      Unfit: if there is no such module or object, or the module fails.
    """
    module, _, path = spec.partition(":")
    if not path or not all(
        part.isidentifier() for part in spec.replace(":", ".").split(".")
    ):
        rule = "must be MODULE:OBJECT, such as package.module:Model."
        raise check.Unfit(rule, model=spec)
    failed = f"importing {module} failed: "
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise check.Unfit(failed + check.brief(error), model=spec) from error
        rule = f"there is no module {error.name}, neither here nor installed."
        if module.endswith(".py"):
            rule += f" Write {module.removesuffix('.py')}:{path}."
        raise check.Unfit(rule, model=spec) from error
    except (Exception, SystemExit) as error:
        raise check.Unfit(failed + check.brief(error), model=spec) from error
    where = module
    for name in path.split("."):
        if not hasattr(found, name):
            near = check.suggestion(name, dir(found))
            raise check.Unfit(f"{where} has no {name}.{near}", model=spec)
        found, where = getattr(found, name), f"{where}.{name}"
    return found
