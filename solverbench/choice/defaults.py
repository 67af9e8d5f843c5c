"""What a pick is compared with: Euler's method, and the scheduler that the pipeline's folder names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from solverbench import registries
from solverbench.teachers.teacher import Teacher

DEFAULT = "euler"
"""The plain default: Euler's method, which is DDIM, on its default grid for the schedule."""

STRETCHED = {
    "use_karras_sigmas": "polynomial",
    "use_exponential_sigmas": "logsnr",
    "use_lu_lambdas": "logsnr",
    "use_beta_sigmas": "beta",
}
"""Options of diffusers' schedulers that place the levels, and the nearest grids; see docs/names.md."""


def defaults(teacher: Teacher) -> dict[str, str]:
    """Return the solvers that a pick is compared with, as role -> spec: Euler, and the pipeline's own scheduler."""
    own = own_scheduler(teacher)
    return {"plain default": DEFAULT} | ({"the pipeline's own scheduler": own} if own else {})


def own_scheduler(teacher: Teacher) -> str:
    """Return the spec nearest to the scheduler in the folder of the teacher's pipeline; empty if there is none."""
    found = config(teacher)
    if found is None:
        return ""
    known = [each.spec for each in registries.foreign(str(found.get("_class_name"))) if each.spec]
    return configured(known[0], found, own=teacher.schedule.calls(4) is not None) if known else ""


def config(teacher: Teacher) -> dict[str, Any] | None:
    """Return the configuration of the scheduler in the folder of the teacher's pipeline; None if there is none."""
    if teacher.pipeline is None:
        return None
    path = teacher.pipeline.folder / "scheduler" / "scheduler_config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError, OSError):
        return None


def configured(spec: str, config: Mapping[str, Any], *, own: bool = False) -> str:
    """Return a scheduler's spec with the options of its configuration.

    Args:
        spec: spec of its class with its defaults, as docs/names.md has it.
        config: scheduler_config.json.
        own: whether the schedule has the pipeline's own levels, so that the grid is `pipeline`.
    """
    name, *parts = spec.split(":")
    options = dict(part.split("=", 1) for part in parts)
    _place(options, config, own=own)
    open_ended = options.get("grid") == "linspace" or options.get("offset") == "0"  # its last call is at the last level
    to_zero = config.get("set_alpha_to_one", True) or open_ended
    if not to_zero or config.get("final_sigmas_type") == "sigma_min":
        for key in ("end", "lower_order_final"):
            options.pop(key, None)
    if "order" in options and config.get("solver_order"):
        options["order"] = str(config["solver_order"])
    if config.get("algorithm_type") == "dpmsolver":
        options["prediction"] = "noise"
    if name == "dpm" and config.get("solver_type") == "heun":
        options["variant"] = "taylor"
    return ":".join([name, *(f"{key}={value}" for key, value in options.items())])


def _place(options: dict[str, str], config: Mapping[str, Any], *, own: bool) -> None:
    """Set the grid, and the offset of `leading`."""
    stretched = next((grid for key, grid in STRETCHED.items() if config.get(key)), "")
    spacing, prefix = config.get("timestep_spacing"), "dpm_" * options.get("grid", "").startswith("dpm_")
    if own or stretched:
        options["grid"] = "pipeline" if own else stretched
    elif spacing == "trailing":
        options["grid"] = "trailing"
    elif spacing in ("leading", "linspace"):
        options["grid"] = prefix + spacing
    options.pop("offset", None)
    if options.get("grid", "").endswith("leading") and (offset := config.get("steps_offset", 0)) != 1:
        options["offset"] = str(offset)
