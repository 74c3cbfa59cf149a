"""One video file: what it holds, its packets, and its frames."""
