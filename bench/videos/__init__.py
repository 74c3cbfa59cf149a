"""The videos that a measurement is made on: chosen from a folder, or made."""
