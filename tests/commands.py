"""Commands that tests call in this process."""

from jaxinit.cli import main


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
