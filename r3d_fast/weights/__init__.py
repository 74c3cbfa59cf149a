"""Weights on the disk: checkpoints, and models that are restored from them."""
