"""Pages of the repository on the site, and links between them.

A page stands beside the code that it is about, and is included. All links are those of
the repository, so that they work there as well; here they become links of the site.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = "jaxinit/docs/pages/"
NOTEBOOKS = "jaxinit/docs/notebooks/"
RESULTS = "bench/results/"  # its pictures are shown

INCLUDED = {
    "overview.md": "README.md",
    "initializers.md": "jaxinit/initializers/README.md",
    "snippets.md": "jaxinit/initializers/SNIPPETS.md",
    "migration.md": "jaxinit/initializers/MIGRATION.md",
    "models.md": "jaxinit/model/README.md",
    "recipes.md": "jaxinit/model/recipes/README.md",
    "check.md": "jaxinit/signal/README.md",
    "scaling.md": "jaxinit/scaling/README.md",
    "calibration.md": "jaxinit/_calibrate/README.md",
    "claims.md": "bench/results/claims/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "plan.md": "jaxinit/README.md",
}
PLACES = {source: uri for uri, source in INCLUDED.items()}

# The page from whose text and blocks each notebook is made.
JOBS = {
    "draw": PAGES + "draw.md",
    "fill": "jaxinit/model/README.md",
    "check": "jaxinit/signal/README.md",
    "compare": PAGES + "compare.md",
    "scale": "jaxinit/scaling/README.md",
    "calibrate": "jaxinit/_calibrate/README.md",
}

_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def map_links(text: str, source: str, find: Callable[[str], str]) -> str:
    """Replaces the targets of relative links, outside of fenced blocks.

    Args:
      text: Markdown.
      source: its file, from the root of the repository.
      find: gives the new target for a file, from the root of the repository.
    """
    folder = posixpath.dirname(source)
    parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.S | re.M)
    for i in range(0, len(parts), 2):
        parts[i] = _LINK.sub(
            lambda link: find(posixpath.normpath(posixpath.join(folder, link[1]))),
            parts[i],
        )
    return "".join(parts)


def find_place(file: str) -> str | None:
    """Returns where a file of the repository is on the site, or None if it is not."""
    if file in PLACES:
        return PLACES[file]
    for folder, place in ((PAGES, ""), (NOTEBOOKS, "notebooks/")):
        if file.startswith(folder):
            return place + file.removeprefix(folder)
    if file.startswith(RESULTS) and file.endswith(".png"):
        return "results/" + file.removeprefix(RESULTS)
    return None


def find_source(uri: str) -> str:
    """Returns the file of a page of the site, from the root of the repository."""
    return INCLUDED.get(uri, PAGES + uri)
