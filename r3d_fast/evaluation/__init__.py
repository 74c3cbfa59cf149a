"""Evaluation: logits of clips, figures of clips and of videos, and the files that they are written to."""
