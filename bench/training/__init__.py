"""`bench train throughput`: training beside the model alone and the loader alone."""
