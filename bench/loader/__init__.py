"""`bench loader throughput`: the loader beside its ceiling and other people's loaders."""
