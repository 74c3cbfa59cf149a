"""Measurements: what the loader and the trainer do on this machine."""
