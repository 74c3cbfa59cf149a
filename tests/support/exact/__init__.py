"""Proof that frames are exact: videos of every codec and container, read by the index and by PyAV, and compared."""
