"""Reads the list files of a data set: which video is of which class and split. No video is looked at."""
