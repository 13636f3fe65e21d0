"""What MkDocs calls: adds pages of the rooms and the reference, and mends links.

Each fact has one place: a page is included from where it stands (`sources`), the
reference is made from the docstrings (`reference`).
"""

import logging
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import link_names, write_pages
from sources import (
    INCLUDED,
    JOBS,
    NOTEBOOKS,
    REPOSITORY,
    RESULTS,
    find_place,
    find_source,
    map_links,
)

_LOG = logging.getLogger("mkdocs.hooks.jaxinit")
_NOTEBOOK = "\n*This page as a [notebook]({path}){{ download }}.*\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds included pages, notebooks, and the reference."""
    for uri, source in INCLUDED.items():
        included = str(REPOSITORY / source)
        files.append(File.generated(config, uri, abs_src_path=included))
    notebooks = [REPOSITORY / NOTEBOOKS / f"{job}.ipynb" for job in JOBS]
    for path in (*notebooks, *(REPOSITORY / RESULTS).rglob("*.png")):
        uri = find_place(path.relative_to(REPOSITORY).as_posix()) or ""
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    for uri, text in write_pages().items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Turns links of the repository into links of the site, and names into links."""
    uri = page.file.src_uri
    if uri.startswith("reference/"):
        return markdown
    source = find_source(uri)

    def find(file: str) -> str:
        place = find_place(file)
        if place is None:
            _LOG.warning(f"{source} links to {file}, which is not on the site")
            return file
        return posixpath.relpath(place, posixpath.dirname(uri) or ".")

    room = "jaxinit.recipes" if uri == "recipes.md" else "jaxinit"
    text = link_names(map_links(markdown, source, find), room)
    for job, file in JOBS.items():
        if file == source:
            head, line, rest = text.partition("\n")
            text = head + line + _NOTEBOOK.format(path=f"notebooks/{job}.ipynb") + rest
    return text


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warns of what a page would load from elsewhere."""
    for address in _LOADED.findall(output):
        _LOG.warning(f"{page.file.src_uri} loads {address}")
    return output


_LOADED = re.compile(
    r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(https?://[^"]+)"'
)
