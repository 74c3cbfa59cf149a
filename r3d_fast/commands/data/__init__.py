"""The commands `r3d-fast data ...`, one module each, and `r3d-fast demo`."""
