"""Weights on disk: checkpoints, and the models that are restored from them."""
