"""Everything that is asked of Paddle itself: its versions, devices, precision, memory and tensors."""
