"""Prediction: names the classes that a model sees in videos, once for each video or second by second."""
