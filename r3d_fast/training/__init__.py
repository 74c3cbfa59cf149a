"""Training: batches, steps, schedules, and what a run that goes on has to know."""
