"""The reference: a page for each public module, with every public name on it."""

import ast
import contextlib
import functools
import importlib
import inspect
import re
import sys
from types import ModuleType
from typing import Any, NamedTuple

from sources import REPOSITORY

sys.path.insert(0, str(REPOSITORY))  # names are those of this checkout
import jaxinit  # noqa: E402, F401


class Page(NamedTuple):
    """A page of the reference: what it shows, and of which module."""

    title: str
    module: str  # whose names it has, as users import it
    about: str  # more than the docstring of the module says, in Markdown


PAGES = {
    "reference/jaxinit.md": Page(
        "jaxinit",
        "jaxinit",
        "What works on weights and models. The builders of initializers, `jaxinit."
        "he_normal` and all others, have a [page of their own](initializers.md).",
    ),
    "reference/initializers.md": Page(
        "Initializers",
        "jaxinit.initializers",
        "All builders, as names of `jaxinit`. By purpose, with law and variance, they "
        "stand in the [table of initializers](../initializers.md).",
    ),
    "reference/random.md": Page("jaxinit.random", "jaxinit.random", ""),
    "reference/ssm.md": Page("jaxinit.ssm", "jaxinit.ssm", ""),
    "reference/torch.md": Page("jaxinit.torch", "jaxinit.torch", ""),
    "reference/model.md": Page("jaxinit.model", "jaxinit.model", ""),
    "reference/recipes.md": Page("jaxinit.recipes", "jaxinit.recipes", ""),
    "reference/lora.md": Page("jaxinit.lora", "jaxinit.lora", ""),
    "reference/signal.md": Page("jaxinit.signal", "jaxinit.signal", ""),
    "reference/theory.md": Page("jaxinit.signal.theory", "jaxinit.signal.theory", ""),
    "reference/scaling.md": Page("jaxinit.scaling", "jaxinit.scaling", ""),
    "reference/lab.md": Page("jaxinit.lab", "jaxinit.lab", ""),
    "reference/testing.md": Page("jaxinit.testing", "jaxinit.testing", ""),
}

# What rooms export for other rooms, not for users.
INNER = {
    "complex_truncated_variance",
    "disk",
    "matmul",
    "normal_mass",
    "truncated_moments",
    "whole",
}


def find_module(name: str) -> ModuleType:
    """Imports a public module, or finds one that has two names (`jaxinit.recipes`)."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        room, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(room), attribute)


def list_exported(module: ModuleType) -> list[str]:
    """Lists what a module defines or exports, by the rule of type checkers.

    Exported is what it imports ``as`` itself, or by a star; a plain import is its own.
    """
    names: list[str] = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            inner = importlib.import_module(str(node.module))
            names += getattr(inner, "__all__", None) or list_exported(inner)
        elif isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.name == alias.asname]
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
    return sorted({name for name in names if name[0] != "_"} - INNER, key=str.lower)


def list_public() -> dict[str, dict[str, Any]]:
    """Lists all public names in full, with their values, by page."""
    builders = list_exported(find_module("jaxinit.initializers"))
    public: dict[str, dict[str, Any]] = {}
    for uri, page in PAGES.items():
        module = find_module(page.module)
        room = "jaxinit" if page.module == "jaxinit.initializers" else page.module
        names = [
            name
            for name in list_exported(module)
            if not inspect.ismodule(getattr(module, name))
            and (page.module != "jaxinit" or name not in builders)
        ]
        public[uri] = {f"{room}.{name}": getattr(module, name) for name in names}
    return public


@functools.cache
def find_first_names() -> dict[str, str]:
    """Returns for each public name the one under which its value is described."""
    firsts: dict[int, str] = {}
    return {
        name: firsts.setdefault(id(value), name) if callable(value) else name
        for names in list_public().values()
        for name, value in names.items()
    }


@functools.cache
def _list_arguments() -> frozenset[str]:
    """Lists the names of arguments, as which a word alone may be meant."""
    names: set[str] = set()
    for public in list_public().values():
        for value in filter(callable, public.values()):
            with contextlib.suppress(TypeError, ValueError):  # has no signature
                names |= inspect.signature(value).parameters.keys()
    return frozenset(names)


def link_names(text: str, room: str = "jaxinit") -> str:
    """Links the first mention of each public name in code to the reference.

    Fenced blocks, headings, links and double backticks stay as they are, and so does a
    word that is an argument too, unless it is called or begins the row of a table.

    Args:
      text: Markdown.
      room: the module whose names are meant first, where a name is not in full.
    """
    known = set()
    firsts = find_first_names()

    def link(match: re.Match[str]) -> str:
        row, said, call = match["row"] or "", match["name"] or "", match["call"]
        full = (f"{room}.{said}", f"jaxinit.{said}", said)
        name = next((name for name in full if name in firsts), None)
        unclear = said in _list_arguments() and not call and not row
        if name is None or name in known or unclear:
            return match[0]
        known.add(name)
        return f"{row}[{match[0].removeprefix(row)}][{firsts[name]}]"

    return _CODE.sub(link, text)


_CODE = re.compile(
    r"^ *```.*?^ *```$|^#[^\n]*$|\[[^\]]*\]\([^)]*\)|``.+?``"
    r"|(?P<row>^\| )?`(?P<name>[\w.]+)(?P<call>\(\))?`",
    re.S | re.M,
)


def write_pages() -> dict[str, str]:
    """Writes the pages of the reference in Markdown, by their place in the site.

    What has two names is described once, under the first.
    """
    pages = {}
    index = ["# All names\n", "Every public name, by module."]
    for uri, names in list_public().items():
        page = PAGES[uri]
        about = (
            link_names(page.about)
            or f"::: {find_module(page.module).__name__}\n{_ONLY_TEXT}"
        )
        text = [f"# {page.title}\n", f"{about}\n"]
        index.append(f"\n## [{page.title}]({uri.removeprefix('reference/')})\n")
        index.append('<div class="names" markdown>\n')
        for name in names:
            first = find_first_names()[name]
            if first == name:
                text.append(f"::: {name}\n")
            else:
                text.append(f"## {name} {{ #{name} }}\n\nAs [`{first}`][{first}].\n")
            place = f"{uri.removeprefix('reference/')}#{name}"
            index.append(f"- [`{name.rpartition('.')[2]}`]({place})")
        index.append("\n</div>")
        pages[uri] = "\n".join(text)
    return pages | {"reference/index.md": "\n".join(index) + "\n"}


_ONLY_TEXT = """\
    options:
      members: false
      show_root_heading: false
      show_root_toc_entry: false
"""
