"""How an experiment trains: the grid of cells, its saves, and its processes."""
