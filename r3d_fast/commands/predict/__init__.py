"""The command `r3d-fast predict`: what it takes, and what it prints and writes."""
