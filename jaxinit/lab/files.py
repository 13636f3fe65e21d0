"""The files of a comparison: results, plots and page."""

from pathlib import Path

from jaxinit.lab._atomic import write_bytes
from jaxinit.lab._show.comparison import Comparison
from jaxinit.lab._show.figure import plots
from jaxinit.lab._show.page import page


def write(
    comparison: Comparison, directory: str | Path, command: str = ""
) -> list[Path]:
    """Writes results.json, the plots (PNG) and index.html.

    Each file replaces the old one as a whole; after a failure the old one is still
    there.

    Args:
      comparison: what `compare` returned.
      directory: where to write them; it is created if it does not exist.
      command: the command that repeats the run, which the page shows.

    Returns:
      The paths of the files.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, str | bytes] = {"results.json": comparison.to_json()}
    files |= {f"{name}.png": png for name, png in plots(comparison).items()}
    files["index.html"] = page(comparison, command)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        write_bytes(directory / name, data)
    return [directory / name for name in files]
