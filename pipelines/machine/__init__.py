"""What this machine has: usable CPUs and memory, GPUs and their driver, processes, installed packages."""
