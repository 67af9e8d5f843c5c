"""A teacher's own many-step samples as images of a reference, which `frechet_teacher` is taken against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from solverbench import files
from solverbench.errors import UserError
from solverbench.evaluation import references
from solverbench.evaluation.image_sources import FIRST_SEED
from solverbench.evaluation.pictures import Pictures, unheard
from solverbench.metrics.quantise import quantise
from solverbench.sampling import endpoints
from solverbench.sampling.devices import pool
from solverbench.sampling.endpoints import Goal
from solverbench.sampling.sample import BATCH, BatchLimit, batches, decoded, sample
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher


@dataclass(frozen=True)
class Sampled(Pictures):
    """Samples of a teacher by its own sampler from the noise of seeds 1 000 000 onwards, as uint8.

    Args:
        teacher: the teacher, on the device that samples.
        count: number of images.
    """

    teacher: Teacher
    count: int

    @cached_property
    def plan(self) -> Goal:
        """The plan of the teacher's sampler."""
        return endpoints.sampler_plan(self.teacher)

    def __len__(self) -> int:
        return self.count

    @property
    def identity(self) -> str:
        return files.digest([references.of_sampler(self.teacher), self.count])

    @property
    def facts(self) -> Mapping[str, str]:
        return {"samples": references.of_sampler(self.teacher)}

    @property
    def origin(self) -> str:
        teacher, last = self.teacher, FIRST_SEED + self.count - 1
        return f"samples of {teacher.name}, {teacher.sampler} {teacher.sampler_nfe} calls, seeds {FIRST_SEED}-{last}"

    def read(self, part: range, note: Callable[[str], None] = unheard) -> Iterator[Tensor]:
        with pool(1) as threads:
            yield threads.submit(self._made, range(FIRST_SEED + part.start, FIRST_SEED + part.stop)).result()

    def _made(self, seeds: range) -> Tensor:
        teacher, fit, made = self.teacher, BatchLimit(BATCH), []
        for part in batches(seeds, BATCH):
            states = sample(self.plan, teacher, part, nfe=teacher.sampler_nfe, fit=fit)
            made.append(quantise(decoded(teacher, states, fit), references.quantiser_of(teacher)).cpu())
        return torch.cat(made)


def own_pictures(name: str, count: int | None, device: str, kind: str | None, crop: str | None) -> Sampled:
    """Return the own samples of the teacher `name`, 10 000 if `count` is None.

    Raises:
        UserError: there is no such teacher, or an option is of no use for samples.
    """
    for flag, value in (("--kind", kind), ("--crop", crop)):
        if value is not None:
            raise UserError(asked=f"{flag} {value}", wrong="of no use with --own-samples", remedy="leave it out")
    if count is not None and count < 2:
        raise UserError(asked=f"--count {count}", wrong="too few images for a covariance", remedy="give at least 2")
    return Sampled(load_teacher(name, device), 10_000 if count is None else count)
