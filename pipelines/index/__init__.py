"""The index of a data set: one SQLite file that lists every video with its label, its split and its packets."""
