"""Where a model's layers are: sites in its traced program, and how they are linked."""
