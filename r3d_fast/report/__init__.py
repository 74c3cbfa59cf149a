"""The report of a run: one HTML page with its curves, its figures and the videos that it gets wrong."""
