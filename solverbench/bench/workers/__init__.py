"""Workers that compute the units of a run: local threads or a Ray cluster."""
