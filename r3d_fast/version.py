"""The version of r3d-fast, which the package, the command line and the files of runs show."""

__version__ = "0.1.0"
