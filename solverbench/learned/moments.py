"""Averages along a teacher's trajectories: the Jacobian's diagonal, and products of states and denoised images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solverbench.method.schedules import NoiseSchedule
from solverbench.method.tableau import noise_scale
from solverbench.seeds import generator

FLOOR = 1e-12
"""Share of the square of the denoised images, below which that of F is rounding in float32, as on Gaussian data."""


class Moments:
    """Sums over trajectories of states x and denoised images D, at places in lambda = -log sigma.

    The trajectories are those of DPM-Solver++(2M) with a call at every place. Besides the sums themselves, each place
    has the products with the place before, from which the change of F = (1 - l) x - D follows for any l.

    Args:
        lam: [S+1], equally spaced and rising.
    """

    def __init__(self, lam: Tensor) -> None:
        self.lam = lam
        self.calls = 0
        self._trace = torch.zeros(len(lam), dtype=torch.float64)
        self._numbers = 0
        # [place, x or D, x or D]: products at one place, and of one place with the next.
        self._here = torch.zeros(len(lam), 2, 2, dtype=torch.float64)
        self._next = torch.zeros(len(lam) - 1, 2, 2, dtype=torch.float64)

    def add(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        schedule: NoiseSchedule,
        *,
        seed: int,
        number: int,
    ) -> None:
        """Add the trajectories that start from unit noise [B, *shape].

        The diagonal's mean at a place is v . (dD/dx) v for one random sign per number (Hutchinson's estimate).

        Args:
            seed, number: training seed and number of the batch, which determine the signs.
        """
        sigmas, h = (-self.lam).exp(), self.lam[1] - self.lam[0]
        dice = generator(seed, "signs", number)
        x = noise_scale(float(sigmas[0]), schedule) * noise
        before: tuple[Tensor, Tensor] | None = None
        for place, sigma in enumerate(sigmas):
            signs = (2 * torch.randint(0, 2, x.shape, generator=dice) - 1).to(x)
            state = x.detach().requires_grad_()
            with torch.enable_grad():
                output = denoise(state, sigma)
                (slope,) = torch.autograd.grad((output * signs).sum(), state)
            d = output.detach()
            self._trace[place] += (slope * signs).double().sum().cpu()
            here = x.double().flatten(), d.double().flatten()
            self._here[place] += _products(here, here)
            if before is not None:
                self._next[place - 1] += _products(before, here)
            if place < len(sigmas) - 1:
                extrapolated = d if before is None else d + (d - before[1].reshape(d.shape).to(d)) / 2
                x = float((-h).exp()) * x - float(torch.expm1(-h)) * extrapolated
            before = here
        self.calls += len(noise) * len(sigmas)
        self._numbers += noise.numel()

    @property
    def diagonal(self) -> Tensor:
        """The mean of the diagonal of d(x - D)/dx at each place, [S+1]."""
        return 1 - self._trace / self._numbers

    def growth(self, diagonal: Tensor) -> Tensor:
        """Return the s [S+1] that minimises E |dF/dlambda - s F|^2 for F = (1 - diagonal) x - D.

        The derivative is a difference between neighbours: of both sides inside, of one at the ends.
        """
        parts = torch.stack([1 - diagonal, -torch.ones_like(diagonal)], 1)
        square = torch.einsum("pi,pij,pj->p", parts, self._here, parts)
        cross = torch.einsum("pi,pij,pj->p", parts[:-1], self._next, parts[1:])
        h = self.lam[1] - self.lam[0]
        inside = (cross[1:] - cross[:-1]) / (2 * h)
        change = torch.cat([(cross[:1] - square[:1]) / h, inside, (square[-1:] - cross[-1:]) / h])
        return change / (square + FLOOR * self._here[:, 1, 1])


def _products(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> Tensor:
    """Return the four dot products, [2, 2]."""
    return torch.stack([torch.stack([a @ b for b in right]) for a in left]).cpu()
