"""The results store: cells, shared arrays, leases between runs, maintenance and transfer."""
