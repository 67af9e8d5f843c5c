"""This package's only training loop: Adam, a moving average of the weights, checkpoints that resume exactly."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solverbench.errors import RecordError, TrainingError
from solverbench.files import write_bytes

WARM_UP = 500
AVERAGE = 0.9995
_TIMED = (100, 400)
_POINTS = 40


@dataclass(frozen=True)
class NetworkFit:
    """One network to train.

    Args:
        name: the name of its weights file and of its section of the record.
        network: the network, on its device; its weights are overwritten.
        loss: step -> scalar, a function of the step and the weights alone (it draws its own data and noise).
        rate: peak learning rate: linear warm-up over 500 steps (a fifth of a shorter run), then a half cosine to 0.
        steps: number of steps; if None, as many as fit in `minutes`, timed over the steps 100-400.
        minutes: time limit if `steps` is None.
    """

    name: str
    network: nn.Module
    loss: Callable[[int], Tensor]
    rate: float
    steps: int | None
    minutes: float = 0.0

    @property
    def plan(self) -> dict[str, int | float | None]:
        """The settings that must be equal for an interrupted run to resume."""
        return {"rate": self.rate, "steps": self.steps, "minutes": self.minutes}


def rate(step: int, steps: int | None, peak: float) -> float:
    """Return the learning rate of `step`; while `steps` is unknown, that of the warm-up."""
    warm = min(WARM_UP, max(steps // 5, 1)) if steps else WARM_UP
    if step < warm or not steps:
        return peak * min(1.0, (step + 1) / warm)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def fit(job: NetworkFit, checkpoint: Path, say: Callable[[str], None], *, every: float = 30.0) -> dict[str, Any]:
    """Train `job.network`, leave the moving average of its weights in it, and return the facts of the run.

    A run that finds its checkpoint resumes as if it had never stopped (on the CPU, bit for bit). The caller removes the
    checkpoint once the weights are written.

    Args:
        checkpoint: file, replaced atomically about every `every` seconds and at the end.
        say: callback for occasional progress lines.

    Raises:
        TrainingError: the loss is no longer finite.
        RecordError: the checkpoint belongs to another run.
    """
    parameters: list[Tensor] = list(job.network.parameters())
    device = parameters[0].device
    optimiser = torch.optim.Adam(
        parameters, lr=job.rate, betas=(0.9, 0.99), fused=True if device.type == "cuda" else None
    )
    average = [p.detach().clone() for p in parameters]
    step, steps, seconds, history = 0, job.steps, 0.0, []
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["plan"] != job.plan:
            raise RecordError(
                asked=checkpoint, wrong=f"made with {state['plan']}, not {job.plan}", remedy="remove it to start again"
            )
        job.network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average = state["average"]
        step, steps, seconds, history = state["step"], state["steps"], state["seconds"], state["history"]
        say(f"{job.name}: goes on from step {step}")

    def save() -> None:
        buffer = io.BytesIO()
        tensors = {"network": job.network.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        numbers = {"plan": job.plan, "step": step, "steps": steps, "seconds": seconds, "history": history}
        torch.save(tensors | numbers, buffer)
        write_bytes(checkpoint, buffer.getvalue())

    started = said = saved = time.monotonic() - seconds
    timer, total, count = 0.0, torch.zeros((), device=device), 0
    while steps is None or step < steps:
        for group in optimiser.param_groups:
            group["lr"] = rate(step, steps, job.rate)
        loss = job.loss(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(AVERAGE, (1 + step) / (10 + step)))
            total += loss
        count += 1
        step += 1
        if steps is None and step == _TIMED[0]:
            total.item()
            timer = time.monotonic()
        if steps is None and step == _TIMED[1]:
            total.item()
            left = job.minutes * 60 - (time.monotonic() - started)
            steps = step + max(int(left / (time.monotonic() - timer) * (_TIMED[1] - _TIMED[0])), 0)
        now = time.monotonic()
        known = steps is not None and (step == steps or step % max(steps // _POINTS, 1) == 0)
        if known:
            history.append([step, total.item() / count])
            total.zero_()
            count = 0
            if not math.isfinite(history[-1][1]):
                wrong = f"the loss is {history[-1][1]} at step {step}"
                raise TrainingError(asked=job.name, wrong=wrong, remedy="train with a lower rate")
        if steps is not None and (now - said > every / 3 or step == steps):
            eta = (now - started) / step * (steps - step)
            last = f"loss {history[-1][1]:.5f}" if history else "timing"
            say(f"{job.name}: {step}/{steps} steps, {step / (now - started):.0f} steps/s, {last}, {eta:.0f} s left")
            said = now
        if now - saved > every or step == steps:
            seconds = now - started
            save()
            saved = now
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    return {"steps": step, "seconds": round(seconds, 1), "losses": history}
