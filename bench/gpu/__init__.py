"""`bench gpu`: everything that a machine with a GPU can tell, in one folder, one page and one file to send."""
