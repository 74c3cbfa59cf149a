"""The same models, faster: traced graphs for training and evaluation, on the CPU and on a GPU."""
