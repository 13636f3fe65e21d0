"""Objects of users, imported by name: ``package.module:Model``."""

import importlib
from typing import Any

from jaxinit import _check as check


def load(spec: str) -> Any:
    """Imports an object.

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
