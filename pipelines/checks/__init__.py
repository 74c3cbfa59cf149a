"""What can be found out about the videos of an index before anything is trained on them."""
