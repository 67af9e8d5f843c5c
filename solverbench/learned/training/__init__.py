"""Training of learned solvers: data, losses, optimisers, checkpoints and results."""
