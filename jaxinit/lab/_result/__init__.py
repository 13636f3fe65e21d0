"""What came of it: rows, statistics, verdicts."""
