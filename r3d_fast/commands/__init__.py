"""The commands of `r3d-fast`, one file for each. A command declares its arguments and calls one function."""
