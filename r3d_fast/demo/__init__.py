"""The command `r3d-fast demo`: generates a data set in which only the motion tells the class, and trains on it."""
