"""Checks of stored numbers: metrics again from their blocks, and blocks again from their seeds."""
