"""Opens video files, says what kind they are and whether they are whole, and lists their packets."""
