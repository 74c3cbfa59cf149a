"""How figures are measured: contenders in turns, the machine, and what a GPU is busy with."""
