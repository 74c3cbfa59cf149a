"""Files and folders that are written whole or not at all, and what stands for an open file, such as stdout."""
