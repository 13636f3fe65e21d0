"""Writes the notebooks, from the text and blocks of pages: a notebook for each job.

Run as ``python jaxinit/docs/notebooks.py``. Cells of code are the blocks that the tests
execute; a notebook has no outputs.
"""

import json
import posixpath
import re
from typing import Any

from sources import JOBS, NOTEBOOKS, REPOSITORY, map_links

_BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.S | re.M)
_FIRST = (
    "Made from [{page}]({page}). It runs in any notebook where `pip install "
    "'jaxinit[lab]'` has been run."
)


def write_notebook(job: str) -> str:
    """Writes the notebook of a job as JSON text."""
    source = JOBS[job]
    folder = posixpath.normpath(NOTEBOOKS)

    def find(file: str) -> str:
        return posixpath.relpath(file, folder)

    text = map_links((REPOSITORY / source).read_text(), source, find)
    parts = _BLOCK.split(text)  # prose, block, prose, ..., prose
    title, _, parts[0] = parts[0].partition("\n")
    cells = [
        _cell(job, 0, f"{title}\n\n{_FIRST.format(page=find(source))}", code=False)
    ]
    for i, part in enumerate(parts):
        if part.strip():
            cells.append(_cell(job, len(cells), part.strip("\n"), code=i % 2 == 1))
    notebook = {
        "cells": cells,
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell(job: str, place: int, text: str, code: bool) -> dict[str, Any]:
    cell = {
        "cell_type": "code" if code else "markdown",
        "id": f"{job}-{place}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    return cell | ({"execution_count": None, "outputs": []} if code else {})


if __name__ == "__main__":
    for job in JOBS:
        (REPOSITORY / NOTEBOOKS / f"{job}.ipynb").write_text(write_notebook(job))
