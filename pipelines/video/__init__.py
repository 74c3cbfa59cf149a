"""Reads one video file: probes it, finds and reads the packets that wanted frames need, and decodes these frames."""
