"""Where a flow scheduler of diffusers places its calls: its own shift, static or by resolution, and what follows it.

Source: `set_timesteps` of diffusers 0.42.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.teachers.families import schedulers

Array = NDArray[np.float64]

RESOLUTION = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
"""The line on which mu lies, tokens to mu, with the defaults of FlowMatchEulerDiscreteScheduler and its pipelines."""

MULTISTEP = {
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "SASolverScheduler",
}  # fmt: skip
"""Classes that, with use_flow_sigmas, leave out the first training time and know neither mu nor shift_terminal."""

EDGE = 1e-6
"""What UniPCMultistepScheduler takes from a first time of 1."""


@dataclass(frozen=True)
class FlowCalls:
    """The times at which a scheduler calls its network.

    Args:
        made: options from `schedulers.settled`.
        shift: s of t = s u/(1 + (s - 1) u).
        trailing: whether the pipeline gives the times 1, .., 1/N before the shift, as FLUX's does.
        terminal: last time after the shift, to which times are stretched; None to leave them.
    """

    made: Mapping[str, Any]
    shift: float
    trailing: bool
    terminal: float | None

    @property
    def rule(self) -> dict[str, Any]:
        """What the times follow from besides the number of calls, as plain JSON values for keys."""
        name, count = str(self.made["_class_name"]), schedulers.steps(self.made)
        found: dict[str, Any] = {"class": name, "steps": count, "shift": float(self.shift), "trailing": self.trailing}
        found |= {"terminal": float(self.terminal)} if self.terminal else {}
        return found | {key: True for key in schedulers.STRETCHED if self.made[key]}

    def times(self, steps: int) -> Tensor:
        """Return the times of `steps` calls, falling, in (0, 1], float64."""
        name, last = self.made["_class_name"], 1 / schedulers.steps(self.made)
        if name in MULTISTEP:
            return torch.from_numpy(self._shifted(np.linspace(1 - last, 0.0, steps + 1)[:-1]))
        if name == "UniPCMultistepScheduler":
            u = self._stretched(self._shifted(np.linspace(1.0, last, steps + 1)[:-1]))
            u[0] -= EDGE * (abs(u[0] - 1) < EDGE)
            return torch.from_numpy(u)
        if self.trailing:
            u = np.linspace(1.0, 1 / steps, steps)
        else:  # the scheduler starts from its own times, which are shifted already unless the shift is dynamic
            end = last if self.made["use_dynamic_shifting"] else float(self._shifted(np.array(last)))
            u = np.linspace(1.0, end, steps)
        return torch.from_numpy(self._placed(self._stretched(self._shifted(u))))

    def levels(self, schedule: RectifiedFlow) -> Callable[[int], Tensor]:
        """Return the function steps -> levels of the calls [steps] on a flow."""

        def levels(steps: int) -> Tensor:
            times = self.times(steps)
            return torch.where(times < schedule.t_start, schedule.sigma(times), schedule.sigma_max)

        return levels

    def _shifted(self, u: Array) -> Array:
        shifted: Array = self.shift * u / (1 + (self.shift - 1) * u)
        return shifted

    def _stretched(self, t: Array) -> Array:
        if not self.terminal or t[-1] == 1:  # a single call is at the start
            return t
        return 1 - (1 - t) * (1 - self.terminal) / (1 - t[-1])

    def _placed(self, t: Array) -> Array:
        """Return times between the first and the last one, as one of `schedulers.STRETCHED` places them."""
        if self.made["use_karras_sigmas"]:
            first, last = t[0] ** (1 / 7), t[-1] ** (1 / 7)
            placed: Array = (first + np.linspace(0, 1, len(t)) * (last - first)) ** 7
        elif self.made["use_exponential_sigmas"]:
            placed = np.exp(np.linspace(math.log(t[0]), math.log(t[-1]), len(t)))
        elif self.made["use_beta_sigmas"]:
            from scipy.special import betaincinv

            placed = t[-1] + betaincinv(0.6, 0.6, 1 - np.linspace(0, 1, len(t))) * (t[0] - t[-1])
        else:
            placed = t
        return placed


def of(config: Mapping[str, Any], *, trailing: bool = False, tokens: int | None = None) -> FlowCalls | None:
    """Return where a scheduler of this configuration places its calls; None if that isn't known.

    It isn't for what is no flow, a Heun scheduler, stretched times of a multistep class, and a shift by resolution
    without the number of the network's image tokens.

    Args:
        config: configuration of the scheduler, as in scheduler_config.json.
        trailing: see `FlowCalls`.
        tokens: number of image tokens, from which a dynamic shift follows.
    """
    made = schedulers.settled(config)
    name, multistep = made["_class_name"], bool(made[schedulers.FLOW])
    if not schedulers.flows(made) or name == "FlowMatchHeunDiscreteScheduler":
        return None
    if multistep and any(made[key] for key in schedulers.STRETCHED):
        return None
    shift, terminal = made["flow_shift" if multistep else "shift"], config.get("shift_terminal")
    if made["use_dynamic_shifting"] and name not in MULTISTEP:
        if tokens is None:
            return None
        given = {key: config.get(key, default) for key, default in RESOLUTION.items()}
        shift = RectifiedFlow.dynamic_shift(
            tokens=tokens, form=str(config.get("time_shift_type") or "exponential"),
            low=(given["base_image_seq_len"], given["base_shift"]),
            high=(given["max_image_seq_len"], given["max_shift"]),
        )  # fmt: skip
    return FlowCalls(made, float(shift), trailing, None if name in MULTISTEP or not terminal else float(terminal))
