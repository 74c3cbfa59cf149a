"""Damaged videos: how files are damaged, and whether what is read of them is right."""
