"""How results are shown: tables, JSON and plots, with the machine they come from."""
