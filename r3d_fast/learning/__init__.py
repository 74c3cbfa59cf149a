"""One optimiser step: the model that learns, its loss and gradients, the optimiser and its learning rate."""
