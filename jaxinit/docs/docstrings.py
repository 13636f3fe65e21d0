"""Docstrings as Markdown: what is plain text in `help` gets its form on the site."""

import re
from typing import Any

import griffe
from reference import link_names

_FIRST_SECTION = re.compile(r"^(?=[A-Z][a-z]+:$)", re.M)


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fences tables and formulas, and links names."""
        if obj.docstring:
            text = to_markdown(obj.docstring.value)
            room = re.sub(r"\._.*", "", obj.path)
            obj.docstring.value = link_names(text, room)


def to_markdown(text: str) -> str:
    """Returns a docstring in which tables and formulas are fenced."""
    prose, *sections = _FIRST_SECTION.split(text, maxsplit=1)
    paragraphs = [
        f"```text\n{part}\n```"
        if part.startswith("  ") or "\n====" in f"\n{part}"
        else part
        for part in prose.rstrip().split("\n\n")
    ]
    prose = "\n\n".join(paragraphs).replace("Law: ", "**Law:** ", 1)
    rest = re.sub("^Example:$", "Examples:", "".join(sections), flags=re.M)
    return f"{prose}\n\n{rest}"
