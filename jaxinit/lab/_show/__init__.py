"""How results are shown: tables, plots, page, logs, files."""
