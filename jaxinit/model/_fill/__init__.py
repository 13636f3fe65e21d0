"""`jit_init`: an init function is traced, cut into slices, and filled."""
