"""Learned solvers: their parametrisations, training recipes and trained files."""
