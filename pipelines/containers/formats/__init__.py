"""Walks the headers of container formats to see where a file ends before its pictures do; no picture is read."""
