"""Live sources: cameras, streams and pipes, whose frames come while they happen."""
