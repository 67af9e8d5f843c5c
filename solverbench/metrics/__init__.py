"""Metrics of samples: features, distances and their intervals."""
