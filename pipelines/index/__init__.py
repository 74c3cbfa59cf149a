"""The index of a data set: one SQLite file with every video, its label, its split and its packets."""
