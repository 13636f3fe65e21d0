"""One weight: how it is drawn, verified, and raced against its peers and its limit."""
