"""The relaxed objective: each noise may move within a small ball to where the student does better.

min over the parameters of E_z min over |z' - z| <= r of d(student(z'), teacher(z)), with r = radius C H W / NFE^2.
Source: Tong et al. 2024, arXiv:2405.15506 (LD3), section 3.3, with the radius of its public code.
"""

from __future__ import annotations

import math

from torch import Tensor


class Relaxation:
    """The current noises and their update rule.

    Args:
        noise: original noises [n, C, H, W] of unit variance.
        radius: radius of the ball, in the Euclidean norm of a whole noise.
        rate: step size of a gradient step on a noise.
    """

    def __init__(self, noise: Tensor, radius: float, rate: float) -> None:
        self.given, self.radius, self.rate = noise, radius, rate
        self.moved = noise.clone()
        self.accepted = 0

    def proposal(self, chosen: Tensor, noise: Tensor, gradient: Tensor) -> Tensor:
        """Return the noises after a gradient step, projected to the ball around the original ones.

        Args:
            chosen: indices of the noises, [B].
            noise: their current values, [B, C, H, W].
            gradient: gradient of the mean loss at `noise`, of its shape.
        """
        centre = self.given[chosen]
        gap = noise - self.rate * gradient - centre
        length = gap.flatten(1).norm(dim=1).reshape(-1, *[1] * (gap.dim() - 1))
        projected: Tensor = centre + gap * (self.radius / length.clamp(min=self.radius))
        return projected

    def accept(self, chosen: Tensor, proposal: Tensor, better: Tensor) -> float:
        """Keep the proposals where `better` [B] is true; return their share."""
        self.moved[chosen[better]] = proposal[better]
        self.accepted += int(better.sum())
        return float(better.double().mean())

    def end_round(self) -> None:
        """Halve the rate if no proposal of the round was accepted."""
        if self.accepted == 0:
            self.rate *= 0.5
        self.accepted = 0


def radius(scale: float, shape: tuple[int, ...], nfe: int) -> float:
    """Return r = scale C H W / NFE^2 for noises of `shape`."""
    return round(scale * math.prod(shape) / nfe**2, 8)
