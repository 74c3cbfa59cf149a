"""Timelines of live sources: cameras, streams and pipes, which have no end and may be cut."""
