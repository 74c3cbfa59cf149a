"""Evaluation: measures how well a model does on clips and on videos, and writes the results to files."""
