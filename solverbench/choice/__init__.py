"""The choice of a solver for a model and a number of calls: candidates, a race between them, and the answer."""
