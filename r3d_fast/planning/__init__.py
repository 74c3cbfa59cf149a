"""Measures what a step costs on this machine before a run begins, and chooses batches that fit into its memory."""
