"""The worker processes that decode clips, and the memory that they share with the loader."""
