"""The classical solvers, one method per file, written against solverbench's public names alone."""
