"""What users and others give: files, opened without waiting and read to a limit, and texts that hold passwords."""
