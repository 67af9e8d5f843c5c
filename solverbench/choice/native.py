"""The configuration of diffusers' own scheduler that makes a pick's samples, where there is one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from solverbench import registries
from solverbench.choice import defaults
from solverbench.errors import UserError
from solverbench.method.spec import make
from solverbench.method.tableau import Tableau
from solverbench.method.tracing import own_grid, trace
from solverbench.teachers.families.diffusers_folder import INDEX, peek
from solverbench.teachers.teacher import Teacher

CLASSES = ("DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
"""Classes of diffusers whose samples are those of a spec, with the options below; see docs/names.md."""

DDIM_ALONE = ("DDIMPipeline", "DDPMPipeline")
"""Pipelines that pass arguments to each step that the other classes don't take."""

CLOSE = 1e-9
"""Largest difference of the numbers of equal tableaus, relative to max(1, number)."""

_PLACED = ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "use_beta_sigmas", "use_flow_sigmas")
_CHANGED = ("clip_sample", "thresholding", *_PLACED)
"""Options that are off in every configuration here."""


def config(tableau: Tableau, teacher: Teacher) -> dict[str, Any] | None:
    """Return the scheduler_config.json of a scheduler of diffusers whose tableau this is; None if there is none.

    The noise schedule and the prediction are those of the scheduler in the folder of the teacher's pipeline.
    """
    base = defaults.config(teacher)
    if base is None or teacher.pipeline is None or teacher.schedule.calls(4) is not None:
        return None
    classes = CLASSES[:1] if peek(teacher.pipeline.folder / INDEX).get("_class_name") in DDIM_ALONE else CLASSES
    for found in _configs(base, classes):
        known = next(each.spec for each in registries.foreign(found["_class_name"]) if each.spec)
        try:
            solver = make(defaults.configured(known, found)).on(teacher.schedule)
            same = trace(solver, own_grid(solver, teacher.schedule, tableau.nfe))
        except UserError:  # its levels don't fit the schedule or the number of calls
            continue
        if same.equals(tableau, CLOSE):
            return found
    return None


def _configs(base: dict[str, Any], classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield configurations of these classes on the noise schedule of `base`, the usual ones first."""
    plain = {key: value for key, value in base.items() if key not in _CHANGED}
    plain |= {"clip_sample": False, "thresholding": False, "rescale_betas_zero_snr": False}
    spacings = [("leading", 1), ("trailing", 0), ("linspace", 0), ("leading", 0)]
    for name, (spacing, offset), to_zero in itertools.product(classes, spacings, (True, False)):
        own = plain | {"_class_name": name, "timestep_spacing": spacing, "steps_offset": offset}
        if name == "DDIMScheduler":
            yield own | {"set_alpha_to_one": to_zero}
            continue
        own |= {"final_sigmas_type": "zero" if to_zero else "sigma_min", "lower_order_final": True, "solver_order": 2}
        if name == "UniPCMultistepScheduler":
            yield own | {"solver_type": "bh2", "predict_x0": True}
        else:
            yield own | {"solver_type": "midpoint", "algorithm_type": "dpmsolver++", "euler_at_final": False}
