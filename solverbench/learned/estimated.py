"""Learned solvers whose parameters are statistics of the teacher, estimated and not fitted to its images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from solverbench.learned.moments import Moments
from solverbench.method.solver import LearnedSolver
from solverbench.teachers.teacher import Teacher


class EstimatedSolver(LearnedSolver):
    """A learned solver that `train` makes from averages along the teacher's trajectories, in one pass.

    Of its recipe, only the settings that say which noises are used matter.
    """

    @abstractmethod
    def estimate(self, teacher: Teacher, noise: Tensor, seeds: Sequence[int], *, batch: int, seed: int) -> Moments:
        """Return the averages from which the parameters follow.

        Args:
            noise: unit noise [n, *shape] on the teacher's device.
            seeds: the images' seeds [n]; empty if the teacher has no conditions.
            batch: images per call.
            seed: training seed.
        """

    @abstractmethod
    def parameters_of(self, moments: Moments) -> dict[str, Tensor]:
        """Return the parameters, named and shaped as in `initial`."""
