"""`r3d-fast demo`: a data set in which only the motion tells the class, and a run on it."""
