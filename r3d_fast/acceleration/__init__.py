"""Makes models faster with traced graphs, on the CPU and on a GPU. The results are the same except for rounding."""
