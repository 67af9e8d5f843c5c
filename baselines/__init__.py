"""The classical solvers, one method per file, written only with solverbench's public names."""

if __name__ != "solverbench.baselines":  # in a checkout, this folder could be imported twice under two names
    raise ImportError("baselines: import it as solverbench.baselines")
