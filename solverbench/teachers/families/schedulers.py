"""The noise process in a diffusers scheduler's configuration: the network's prediction, its state and its times.

Only the model's own settings are read. Those of the sampler (grid, clipping, thresholding, noise) are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import RecordError
from solverbench.method.schedules import array_digest

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "flow"}
"""Names of the networks' outputs in diffusers to those in SolverBench."""

DISCRETE = {
    "CMStochasticIterativeScheduler": False,
    "KarrasVeScheduler": False,
    "ScoreSdeVeScheduler": False,
    "ScoreSdeVpScheduler": False,
    "EDMEulerScheduler": False,
    "EDMDPMSolverMultistepScheduler": False,
    "TableauScheduler": False,
}
"""Unsupported schedulers: those of other processes, and TableauScheduler, which knows only a few times."""


def prediction(config: Mapping[str, Any]) -> str:
    """Return what the network predicts: eps, v, x0 or flow.

    Args:
        config: configuration of the scheduler, as in scheduler_config.json.

    Raises:
        RecordError: an unsupported scheduler or prediction.
    """
    name = str(config.get("_class_name", "scheduler"))
    if name in DISCRETE:
        raise RecordError(
            f"{name}: its noise process isn't supported; give a model with a discrete VP or flow scheduler"
        )
    if flows(config):
        return "flow"
    asked = config.get("prediction_type", "epsilon")
    if asked not in PREDICTIONS:
        raise RecordError(f"{name}: prediction_type {asked!r} isn't supported; use one of {', '.join(PREDICTIONS)}")
    return PREDICTIONS[asked]


def flows(config: Mapping[str, Any]) -> bool:
    """Return whether the state is (1 - t) x0 + t n and the network predicts n - x0."""
    name = str(config.get("_class_name", ""))
    return name.startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction"


def steps(config: Mapping[str, Any]) -> int:
    """Return the number of training steps, in which a network's own time is counted."""
    return int(config.get("num_train_timesteps", 1000))


def flow_times(config: Mapping[str, Any]) -> tuple[float, float]:
    """Return a flow's first training time below 1 and its last one, with the scheduler's fixed shift applied.

    Raises:
        RecordError: the scheduler's time runs from data to noise.
    """
    if config.get("invert_sigmas", False):
        raise RecordError(
            "scheduler: invert_sigmas reverses the time, which isn't supported; use sb.Teacher on the network"
        )
    count = steps(config)
    shift = (
        1.0 if config.get("use_dynamic_shifting", False) else float(config.get("shift", config.get("flow_shift", 1.0)))
    )
    first, last = (shift * t / (1 + (shift - 1) * t) for t in ((count - 1) / count, 1 / count))
    return first, last


def rule(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of `alphas_cumprod` as plain JSON values; they name the schedule in keys."""
    snr = {"zero_terminal_snr": True} if config.get("rescale_betas_zero_snr", False) else {}
    if config.get("trained_betas") is not None:
        return {"trained_betas": array_digest([float(beta) for beta in config["trained_betas"]]), **snr}
    asked = {"beta_schedule": config.get("beta_schedule", "linear"), "steps": steps(config)}
    if asked["beta_schedule"] != "squaredcos_cap_v2":
        asked |= {"beta_start": float(config.get("beta_start", 1e-4)), "beta_end": float(config.get("beta_end", 0.02))}
    return asked | snr


def alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """Return alpha^2 at each training step [M], float64; the last is 0 with rescaling to zero terminal SNR.

    Raises:
        RecordError: an unknown rule for its betas.

    Source: the formulas of diffusers' schedulers, whose own tables are in float32; Lin et al. 2023, arXiv:2305.08891,
    algorithm 1, for the rescaling.
    """
    squares = torch.cumprod(1 - betas(config), 0)
    if not config.get("rescale_betas_zero_snr", False):
        return squares
    roots = squares.sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    return ((roots - last) * (first / (first - last))) ** 2


def betas(config: Mapping[str, Any]) -> Tensor:
    """Return the variances added by training [M], float64, before any rescaling.

    Raises:
        RecordError: an unknown rule, or variances that are not between 0 and 1.
    """
    count = steps(config)
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    rule = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        found = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif rule == "linear":
        found = torch.linspace(start, end, count, dtype=torch.float64)
    elif rule == "scaled_linear":
        found = torch.linspace(math.sqrt(start), math.sqrt(end), count, dtype=torch.float64) ** 2
    elif rule == "squaredcos_cap_v2":
        # Source: Nichol & Dhariwal 2021, arXiv:2102.09672, equation 17, with betas of at most 0.999.
        times = torch.arange(count + 1, dtype=torch.float64) / count
        squares = ((times + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        found = (1 - squares[1:] / squares[:-1]).clamp(max=0.999)
    elif rule == "sigmoid":
        found = torch.linspace(-6, 6, count, dtype=torch.float64).sigmoid() * (end - start) + start
    else:
        raise RecordError(
            f"scheduler: beta_schedule {rule!r} isn't known; write the betas themselves, as trained_betas"
        )
    if not ((found > 0) & (found < 1)).all() or len(found) < 2:
        raise RecordError(f"scheduler: {len(found)} betas, not all between 0 and 1; correct its configuration")
    return found
