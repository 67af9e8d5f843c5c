"""Training data: noises and the teacher's final states for them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from solverbench.teachers.convergence import Convergence


@dataclass(frozen=True, eq=False)
class Pairs:
    """Unit noise and the teacher's final states for it, both [n, *shape] float32; `seeds` [n] are the noises' seeds."""

    noise: Tensor
    images: Tensor
    seeds: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def pick(self, chosen: Tensor) -> Pairs:
        """Return the pairs with these indices."""
        place = chosen.to(self.noise.device)
        seeds = self.seeds[chosen] if len(self.seeds) else self.seeds
        return Pairs(self.noise[place], self.images[place], seeds)


@dataclass(frozen=True, eq=False)
class Data:
    """Training and validation pairs; the two share no seed.

    Args:
        convergence: the error of the teacher sampler that made the images; None if it wasn't measured.
    """

    train: Pairs
    validation: Pairs
    convergence: Convergence | None = None
