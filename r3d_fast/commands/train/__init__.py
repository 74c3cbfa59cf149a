"""The command `r3d-fast train`: what it takes, and what it makes of it."""
