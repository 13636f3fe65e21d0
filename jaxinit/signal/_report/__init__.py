"""Shows findings: as text, on a console, in a notebook, as a plot, as an assertion."""
