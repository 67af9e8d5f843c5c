"""Evaluation of samples: references, their images, and the choice of metrics."""
