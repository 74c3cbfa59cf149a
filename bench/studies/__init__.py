"""Measurements of one question each: CPU speed, models, prediction, resuming, scale."""
