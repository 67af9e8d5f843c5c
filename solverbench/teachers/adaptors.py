"""Adaptor from a network in its own frame to `denoise(x, sigma)`: its prediction, state and time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from solverbench.errors import SpecError
from solverbench.method.rectified_flow import RectifiedFlow
from solverbench.method.schedules import NoiseSchedule

PREDICTIONS = ("eps", "v", "x0", "flow")


class Adapted:
    """The data prediction of a network whose state is y = alpha x0 + s n, at time t of its schedule.

    In the EDM frame x = y/alpha and sigma = s/alpha. The network sees y, computed from x in x's own precision, and a
    time clamped to the model's last one, also where x's level replaces an infinite one.

        eps    n                 x0 = x - sigma eps
        v      alpha n - s x0    x0 = (alpha y - s v)/(alpha^2 + s^2)
        x0     x0
        flow   n - x0            x0 = (y - s flow)/(alpha + s)

    Args:
        network: (y [B, ...], t 0-d of y's dtype and device) -> its prediction, of y's shape.
        schedule: schedule of the model, which gives alpha, s and t.
        predicts: eps, v, x0 or flow.
        told: map from the schedule's time to the network's time input, e.g. `lambda t: 1000 * t - 1`; None: identity.

    Source: Salimans & Ho 2022, arXiv:2202.00512, appendix D (v); Liu et al. 2022, arXiv:2209.03003 (flow).

    Raises:
        SpecError: an unknown prediction; or eps on a schedule whose first level stands for an infinite one, where the
            state is noise alone, and x0 = x - 1e6 eps multiplies an error of the network by a million.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        schedule: NoiseSchedule,
        predicts: str = "eps",
        *,
        told: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if predicts not in PREDICTIONS:
            raise SpecError(
                asked=f"predicts={predicts!r}", wrong="not a parametrisation", remedy=f"use {', '.join(PREDICTIONS)}"
            )
        if predicts == "eps" and schedule.stands_in:
            raise SpecError(
                asked=f"predicts=eps on {type(schedule).__name__}",
                wrong=f"its start holds no data, and x - {schedule.sigma_max:g} eps multiplies an error of the network",
                remedy=f"give what the network predicts, mostly v, or start at a finite level: {_finite(schedule)}",
            )
        self.network, self.schedule, self.predicts, self.told = network, schedule, predicts, told

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the data prediction, of x's shape and dtype.

        Args:
            x: states [B, ...] in the EDM frame.
            sigma: noise level, 0-d float64 on the CPU.
        """
        t = self.schedule.time(sigma)
        alpha = self.schedule.alpha(t)
        keep, take = coefficients(self.predicts, alpha, alpha * sigma, sigma)
        t = t.clamp(max=self.schedule.t_last)
        t = t if self.told is None else self.told(t)
        # Computed in float64, then moved to x's device in one transfer.
        alpha, keep, take, t = torch.stack((alpha, keep, take, t)).to(x.device, x.dtype, non_blocking=True)
        found: Tensor = keep * x + take * self.network(alpha * x, t).to(x.dtype)
        return found


def coefficients(predicts: str, alpha: Tensor, s: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return (a, b) with x0 = a x + b (the network's output), 0-d, of a prediction of `PREDICTIONS`."""
    one = torch.ones_like(sigma)
    if predicts == "eps":
        return one, -sigma
    if predicts == "v":
        return alpha**2 / (alpha**2 + s**2), -s / (alpha**2 + s**2)
    if predicts == "flow":
        return alpha / (alpha + s), -s / (alpha + s)
    return 0 * one, one


class Clipped:
    """A data prediction clipped to [-bound, bound] in every call, as `clip_sample` of diffusers does in every step.

    Where it clips, the path is no longer that of the network's ODE, and gradients are 0.

    Args:
        denoise: (x [B, ...], sigma 0-d) -> data prediction of x's shape.
        bound: largest absolute value, above 0; 1 for images on [-1, 1].

    Raises:
        SpecError: a bound that is not above 0.
    """

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor], bound: float = 1.0) -> None:
        if not 0 < bound < float("inf"):
            raise SpecError(asked=f"clip={bound:g}", wrong="not a bound above 0", remedy="1 fits images on [-1, 1]")
        self.denoise, self.bound = denoise, bound

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the clipped data prediction, of x's shape."""
        return self.denoise(x, sigma).clamp(-self.bound, self.bound)


def _finite(schedule: NoiseSchedule) -> str:
    """Return how to make the schedule without its infinite first level."""
    if isinstance(schedule, RectifiedFlow):
        return "RectifiedFlow(t_start=0.999)"
    return "leave out the last of alphas_cumprod, which is 0, and count one step less in told"


def per_image(network: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a network with one time per image, (y [B, ...], t [B]), as one with a single time for all, t 0-d."""
    return lambda y, t: network(y, t.expand(len(y)))


def fingerprint(network: nn.Module | Mapping[str, Tensor]) -> str:
    """Return the sha256 of all weights (names, dtypes, shapes, bytes): the identity of a network in keys."""
    tensors = network.state_dict() if isinstance(network, nn.Module) else network
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        found.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()
