"""Commands that tests call in this process."""

import re
import sys

from jaxinit.cli import main


def write_models(text, tmp_path, monkeypatch):
    """Writes a module that commands can import from here; returns its name."""
    name = "models_" + re.sub(r"\W", "_", tmp_path.name)
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def refusal(words, capsys):
    """Runs a command that must be refused; returns the one line that it prints."""
    try:
        code = main(words)
    except SystemExit as end:  # argparse
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2 and not out and err.count("\n") == 1, err
    assert err.startswith("jaxinit")
    return err.strip()
