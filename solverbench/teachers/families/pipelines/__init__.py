"""Folders of any diffusers pipeline: its own call for one step, with a probe as its scheduler, is the denoiser."""
