"""Pictures of clips as the model gets them."""
