"""How to install an optional extra, in the words that fit this installation: from a clone, an index or elsewhere."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Extra:
    """An optional extra of the package.

    Args:
        module: a module that it installs.
        purpose: what it is for.
    """

    module: str
    purpose: str


EXTRAS = {
    "fid": Extra("cleanfid", "FID as clean-fid computes it"),
    "lpips": Extra("lpips", "LPIPS as metric and as loss"),
    "clip": Extra("transformers", "metrics with features of CLIP and DINOv2"),
    "datasets": Extra("pyarrow", "images in Parquet and Arrow files"),
    "diffusers": Extra("diffusers", "diffusers folders and Stable Diffusion"),
    "notebook": Extra("ipywidgets", "progress bars in notebooks"),
    "tensorboard": Extra("tensorboard", "training curves in TensorBoard"),
    "ray": Extra("ray", "workers on a Ray cluster"),
    "energy": Extra("pynvml", "the energy that NVIDIA's devices use"),
}
"""The extras that a user may install, by name."""


def install(extra: str) -> str:
    """Return the command that installs an extra of this package, and where to run it if that matters."""
    if from_clone():
        return f"pip install '.[{extra}]' in the clone of SolverBench"
    return f"pip install 'solverbench[{extra}]'"


@cache
def from_clone() -> bool:
    """Return whether this package was installed from a folder, or is used in one, and not taken from an index.

    Source: PEP 610, `direct_url.json` of an installed distribution: it has `dir_info` for a folder.
    """
    if (Path(__file__).parents[1] / "pyproject.toml").is_file():
        return True
    try:
        told = importlib.metadata.distribution("solverbench").read_text("direct_url.json")
        return "dir_info" in json.loads(told or "{}")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError, TypeError):
        return False
