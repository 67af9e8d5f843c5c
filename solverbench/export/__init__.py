"""Export of solvers to other code. Exported files contain copies of `diffusers` or `k_diffusion` and are standalone."""
