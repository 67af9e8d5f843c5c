"""Solvers for other code. `diffusers` and `k_diffusion` need nothing of SolverBench: exports hold copies of them."""
