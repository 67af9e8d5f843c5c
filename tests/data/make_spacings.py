"""Writes spacings.json: where diffusers' schedulers (0.42.1) place their calls. Needs diffusers; run from here."""

import json
import math
from pathlib import Path

import numpy as np

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
CALLS = (2, 4, 7, 20)
MU = 1.15


def spacings():
    """Return {"steps": training steps, "times": a flow's times and the end}, each by the grid's spec and the calls."""
    from diffusers import DDIMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
    from diffusers import FlowMatchEulerDiscreteScheduler as Flow

    steps, times = {}, {}

    def told(grid, calls, scheduler, **given):
        scheduler.set_timesteps(**given or {"num_inference_steps": calls})
        found = scheduler.timesteps.tolist()
        assert steps.setdefault(f"{grid} {calls}", found) == found

    def flow(grid, calls, scheduler, **given):
        scheduler.set_timesteps(**given)
        times[f"{grid} {calls}"] = scheduler.sigmas.tolist()

    for calls in CALLS:
        told("leading:offset=0", calls, DDIMScheduler(**BETAS, timestep_spacing="leading"))
        for spacing in ("leading", "trailing", "linspace"):
            asked = {**BETAS, "timestep_spacing": spacing, "steps_offset": int(spacing == "leading")}
            told(spacing, calls, DDIMScheduler(**asked))
            for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler):
                told(spacing if spacing == "trailing" else f"dpm_{spacing}", calls, kind(**asked))
        given = {"sigmas": np.linspace(1, 1 / calls, calls).tolist()}
        for shift in (1, 3):
            flow(f"linspace:shift={shift}", calls, Flow(shift=float(shift)), num_inference_steps=calls)
            flow(f"trailing:shift={shift}", calls, Flow(shift=float(shift)), **given)
        for form, shift in (("exponential", math.exp(MU)), ("linear", MU)):
            scheduler = Flow(use_dynamic_shifting=True, time_shift_type=form)
            flow(f"trailing:shift={shift!r}", calls, scheduler, **given, mu=MU)
    return {"steps": steps, "times": times}


if __name__ == "__main__":
    lines = [
        f'"{kind}": {{\n' + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items()) + "\n}"
        for kind, found in spacings().items()
    ]
    Path("spacings.json").write_text("{" + ",\n".join(lines) + "}\n")
