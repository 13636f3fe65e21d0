"""What a comparison found: rows, statistics, verdicts."""
