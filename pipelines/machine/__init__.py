"""What this machine has: usable CPUs, the device that clips are made on, the NVIDIA driver and its GPUs."""
