"""Finds the videos, classes and splits of a data set, from its folders or its list files."""
