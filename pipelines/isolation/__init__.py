"""Work on files in processes of its own, so that a file that crashes or blocks them ends nothing else."""
