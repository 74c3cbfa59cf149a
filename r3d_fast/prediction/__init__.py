"""Prediction: videos become the names of classes, once a video or second by second."""
