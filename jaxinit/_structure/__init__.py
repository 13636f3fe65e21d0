"""What each parameter does in a model's program, whatever its name and layout."""
