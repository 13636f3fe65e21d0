"""What is tried: text as people write it, read into an experiment of values."""
