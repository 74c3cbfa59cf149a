"""The folder of a run and what is written to it: metrics, curves, checkpoints, its environment."""
