"""The folder of a run and the files in it: metrics, curves, checkpoints and a record of the machine."""
