"""Everything behind `r3d-fast doctor`: what this machine can do, and how to fix what is missing."""
