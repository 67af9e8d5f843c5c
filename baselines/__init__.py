"""The classical solvers, one method per file, written against solverbench's public names alone."""

if __name__ != "solverbench.baselines":  # in a checkout this folder could be imported twice, by two names
    raise ImportError("baselines: import it as solverbench.baselines")
