"""How a case is measured: the clock, the memory, the row that they fill."""
