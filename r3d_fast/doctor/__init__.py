"""`r3d-fast doctor`: what this machine can do, and the line that mends what it lacks."""
