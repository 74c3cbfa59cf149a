"""Everything that depends on Paddle itself: its versions, devices, precision, memory and tensors."""
