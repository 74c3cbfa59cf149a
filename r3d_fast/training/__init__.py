"""The loop of a run: epochs, checkpoints, evaluations, and what a run that goes on has to know."""
