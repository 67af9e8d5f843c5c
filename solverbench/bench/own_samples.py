"""A teacher's own many-step samples as images of a reference, which `frechet_teacher` is taken against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from solverbench import files
from solverbench.bench.cells import Cell, each_teacher
from solverbench.bench.progress import Listener
from solverbench.bench.protocol import Protocol
from solverbench.errors import UserError
from solverbench.evaluation import floors, own_data, references
from solverbench.evaluation.image_sources import FIRST_SEED
from solverbench.evaluation.pictures import Pictures, unheard
from solverbench.evaluation.selection import Measurement
from solverbench.metrics import table
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
        by_run: whether a run makes them because a metric needs them.
    """

    teacher: Teacher
    count: int
    by_run: bool = False

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
        made = {"made": references.BY_RUN} if self.by_run else {}
        return {"samples": references.of_sampler(self.teacher), **made}

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


def with_references(wanted: Sequence[Cell], out: Path, tell: Listener) -> list[Cell]:
    """Return the cells with the references that they lack built, and with what a distance to each can reach.

    A teacher whose own samples fail leaves its metrics lacking, with the reason; the others are measured.

    Raises:
        UserError, RecordError, FeatureError: a reference that was asked for can't be built.
    """
    found = dict[str, tuple[Measurement, Protocol]]()
    for cell in each_teacher(wanted):
        protocol, measurement = cell.protocol, _completed(cell, out, tell)
        judged = measurement.evaluation
        if judged is not None:
            facts = floors.of(judged, protocol.samples, out)
            measurement = replace(measurement, evaluation=replace(judged, facts=facts))
            if (asked := protocol.judging.reference) and own_data.of_images(asked, out):
                stored = replace(protocol.judging, reference=judged.data.name.partition(" (")[0])
                protocol = replace(protocol, judging=stored)  # another worker needs no images
        found[cell.teacher.name] = measurement, protocol
    made = [(cell, *found[cell.teacher.name]) for cell in wanted]
    return [replace(cell, measurement=measurement, protocol=protocol) for cell, measurement, protocol in made]


def _completed(cell: Cell, out: Path, tell: Listener) -> Measurement:
    """Return the measurement of a cell's teacher after its pending references are built."""
    teacher, protocol, measurement = cell.teacher, cell.protocol, cell.measurement
    failed = dict[str, str]()
    while measurement.pending and not failed:
        for each in measurement.pending:
            try:
                each.build(each.pictures or Sampled(teacher, each.count, by_run=True), out, tell.note)
            except UserError as error:
                if each.pictures is not None:
                    raise
                lost = table.of(measurement.lacking, lambda each: each.to_teacher)
                failed |= dict.fromkeys(lost, str(error))
        measurement = protocol.judging.of_teacher(teacher, protocol.samples, protocol.block, out)
    lacking = {**measurement.lacking, **failed}
    return replace(measurement, lacking=lacking, broken=measurement.broken | set(failed)) if failed else measurement


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
