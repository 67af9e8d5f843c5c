"""The check of an adapter at load: the pipeline's own scheduler beside the same updates through the denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import RecordError
from solverbench.teachers.families.pipelines import probe
from solverbench.teachers.families.pipelines.adapter import Adapter

STEPS = 3
"""Number of the check's steps."""

MOST = 1e-3
"""Largest difference, relative to the largest value, in float32. Measured on right adapters: at most 2e-5."""

HALF = 8
"""Number of roundings by which half precision may differ: the network's inputs differ in their last bit."""


def bound(dtype: torch.dtype) -> float:
    """Return the largest difference allowed with a number format."""
    return max(MOST, HALF * torch.finfo(dtype).eps) if dtype != torch.float32 else MOST


class Record:
    """The recorded steps of the pipeline's own scheduler: the arguments and the result of each."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], Tensor]] = []
        self.sigmas = torch.empty(0)
        self.times = torch.empty(0)
        self.began: Any = None

    def begin(self, scheduler: Any) -> None:
        """Keep the levels, and the scheduler as it is before its first step."""
        self.times = torch.as_tensor(scheduler.timesteps).double().cpu()
        sigmas = getattr(scheduler, "sigmas", None)
        self.sigmas = torch.empty(0) if sigmas is None else torch.as_tensor(sigmas).double().cpu()
        self.began = probe.unwatched(scheduler)

    def add(self, scheduler: Any, named: dict[str, Any], found: Any) -> None:
        """Keep a step, and end the call after the last one."""
        self.calls.append((named, _next(found).detach().clone()))
        if len(self.calls) == len(self.times):
            raise probe.Stop


@torch.no_grad()
def measured(
    adapter: Adapter,
    denoise: Callable[[Sequence[str]], Callable[[Tensor, Tensor], Tensor]],
    level: Callable[[float, float | None], tuple[float, float]],
    prompts: Sequence[str],
) -> float:
    """Return the largest relative difference of states and outputs between the pipeline and the denoiser.

    Each of one or two images is made alone by the pipeline, and in one batch by the denoiser.

    Args:
        denoise: prompts -> the denoiser of a batch, as solvers call it.
        level: told time and the scheduler's own sigma (None if it has none) -> alpha and s of the state
            alpha x0 + s n, from the scheduler's tables alone.
        prompts: their prompts; empty if the call takes none.
    """
    count = max(len(prompts), 1)
    records = []
    for n in range(count):
        record = Record()
        own = probe.watched(adapter.scheduler, began=record.begin, stepped=record.add)
        adapter.watched(own, STEPS, prompts[n : n + 1])
        records.append(record)
    through = denoise(prompts)
    schedulers = [record.began for record in records]
    states = [probe.state(record.calls[0][0]) for record in records]
    most, olds = 0.0, [None] * count
    kind = predicted(adapter.scheduler)
    for k in range(min(len(record.calls) for record in records)):
        named = [record.calls[k][0] for record in records]
        timestep = named[0]["timestep"]
        told = float(timestep)
        sigma = float(records[0].sigmas[k]) if k < len(records[0].sigmas) else None
        if adapter.turned:
            told, sigma = adapter.count - told, None if sigma is None else 1 - sigma
        alpha, s = level(told, sigma)
        inputs = [scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
                  for scheduler, x in zip(schedulers, states, strict=True)]  # fmt: skip
        y = torch.cat(inputs).double()  # of float32's roundings, turning data into an output would make much
        x = y.reshape(count, *adapter.shape) / alpha
        d = through(x, torch.tensor(s / alpha, dtype=torch.float64)).reshape(y.shape)
        outputs = output(kind, y, d, alpha, s).to(named[0]["model_output"].dtype)
        outputs = -outputs if adapter.turned else outputs
        for n in range(count):
            expected, given = named[n]["model_output"], outputs[n : n + 1]
            half = expected.shape[1] == 2 * given.shape[1] if expected.ndim > 1 else False
            mean = expected[:, : given.shape[1]] if half else expected
            if mean.shape != given.shape:
                return float("inf")
            given_whole = torch.cat((given, expected[:, given.shape[1] :]), 1) if half else given
            most = max(most, _difference(given, mean))
            found = _stepped(schedulers[n], named[n], given_whole, states[n], olds[n])
            states[n], olds[n] = _next(found), found[-1] if isinstance(found, tuple) else None
            most = max(most, _difference(states[n], records[n].calls[k][1]))
    return most


def predicted(scheduler: Any) -> str:
    """Return the kind of prediction of a network, by the scheduler's own configuration."""
    if "Flow" in type(scheduler).__name__ or scheduler.config.get("use_flow_sigmas"):
        return "flow"
    return str(scheduler.config.get("prediction_type", "epsilon"))


def output(kind: str, y: Tensor, d: Tensor, alpha: float, s: float) -> Tensor:
    """Return the network output that predicts data `d` at state y = alpha d + s n."""
    if kind == "sample":
        return d
    noise = (y - alpha * d) / s
    return {"epsilon": noise, "v_prediction": alpha * noise - s * d, "flow": noise - d}[kind]


def check(adapter: Adapter, difference: float) -> None:
    """Raise `RecordError` if the difference is above the bound."""
    most = bound(adapter.format)
    if difference <= most:
        return
    raise RecordError(
        asked=adapter.name,
        wrong=f"one call of {adapter.kind} doesn't stand for its sampler: over {STEPS} steps they differ by "
        f"{difference:.2g} of the largest value, more than {most:.2g}",
        remedy="its output depends on more than a state and a time, such as earlier steps; use sb.Teacher around its "
        "network",
    )  # fmt: skip


def _stepped(scheduler: Any, named: dict[str, Any], given: Tensor, state: Tensor, old: Any) -> Any:
    """Return the result of the scheduler's own step with another output and state; random numbers are the same."""
    kept = {key: value for key, value in named.items() if key not in ("self", "return_dict", "generator states")}
    kept |= {"model_output": given, ("sample" if "sample" in kept else "model_input"): state}
    if "old_pred_original_sample" in kept and old is not None:
        kept["old_pred_original_sample"] = old
    if named["generator states"]:
        made = [torch.Generator("cpu") for _ in named["generator states"]]
        for generator, numbers in zip(made, named["generator states"], strict=True):
            generator.set_state(numbers)
        kept["generator"] = made if isinstance(kept["generator"], (list, tuple)) else made[0]
    return scheduler.step(return_dict=False, **kept)


def _next(found: Any) -> Tensor:
    state: Tensor = found[0] if isinstance(found, tuple) else found.prev_sample
    return state


def _difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest expected value; infinite if not comparable."""
    if found.shape != expected.shape or not found.isfinite().all():
        return float("inf")
    most = float(expected.float().abs().max())
    return float((found.float() - expected.float()).abs().max()) / max(most, 1e-12)
