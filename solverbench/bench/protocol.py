"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, field

from solverbench import seeds
from solverbench.errors import UserError
from solverbench.evaluation.selection import MetricSelection
from solverbench.metrics.reduction import BLOCKS as BLOCKS
from solverbench.sampling.sample import BATCH

SAMPLES, REPLICATES, PAIRED = 10_000, 3, 2_000
"""Images per replicate, replicates, images per replicate compared with the teacher's own."""


EXACT = 1000
"""Images per replicate compared with the exact solution, where that is asked for: the first hundred of each block."""


MOST = 10_000_000
"""Images of a cell that can be asked for: 200 times a paper's 50 000."""


@dataclass(frozen=True)
class Protocol:
    """Which images of a cell are made and how they are cut.

    Args:
        seeds: of all images: consecutive, replicate after replicate.
        samples: images per replicate, a multiple of 10.
        batch: images per call of the denoiser.
        full: compare every image with the teacher's own, not only the first 2000 of each replicate.
        exact: compare some with the exact solution of the teacher's ODE; None leaves that to the teacher.
        judging: what they are measured by.
    """

    seeds: range
    samples: int
    batch: int
    full: bool
    exact: bool | None = None
    judging: MetricSelection = field(default_factory=MetricSelection)

    @classmethod
    def of(
        cls,
        samples: int,
        replicates: int | None,
        chosen: range | str | None,
        batch: int | None,
        full: bool,
        exact: bool | None = None,
        judging: MetricSelection | None = None,
    ) -> Protocol:
        """Return the protocol for what a user asked.

        Args:
            replicates: 3 if None and `chosen` doesn't say.
            chosen: seeds, a multiple of `samples`; the default ones if None.
            batch: the default if None.
            judging: the teacher's own if None.

        Raises:
            UserError: numbers out of range, or that contradict each other.
        """
        if samples < BLOCKS or samples % BLOCKS:
            near = max(round(samples / BLOCKS), 1) * BLOCKS
            raise UserError(f"samples {samples}: not a positive multiple of {BLOCKS} (seed blocks); use {near}")
        if replicates is not None and replicates < 1:
            raise UserError(f"replicates {replicates}: at least one is needed; use {REPLICATES}")
        if batch is not None and batch < 1:
            raise UserError(f"batch {batch}: at least one image is needed; use {BATCH}")
        if samples * (replicates or REPLICATES) > MOST:
            raise UserError(f"samples {samples} x {replicates or REPLICATES}: more than {MOST} images; ask for fewer")
        if isinstance(chosen, str):
            chosen = seeds.parse(chosen)
            if len(chosen) > MOST:
                raise UserError(f"seeds {seeds.label(chosen)}: more than {MOST} images; ask for fewer")
        if chosen is None:
            chosen = range(seeds.EVALUATION_START, seeds.EVALUATION_START + samples * (replicates or REPLICATES))
        if len(chosen) % samples or replicates not in (None, len(chosen) // samples):
            wanted = samples * (replicates or max(len(chosen) // samples, 1))
            raise UserError(
                f"seeds {seeds.label(chosen)}: {len(chosen)} seeds are not {replicates or 'a whole number of'} "
                f"replicates of {samples}; use {seeds.label(range(chosen.start, chosen.start + wanted))}, "
                "or other samples"
            )
        return cls(chosen, samples, batch or BATCH, full, exact, judging or MetricSelection())

    @property
    def replicates(self) -> int:
        """R, the number of replicates."""
        return len(self.seeds) // self.samples

    @property
    def block(self) -> int:
        """Images per seed block."""
        return self.samples // BLOCKS

    @property
    def paired(self) -> int:
        """Images of a replicate, its first ones, that are compared with the teacher's own."""
        return self.samples if self.full else min(PAIRED, self.samples)

    @property
    def blocks(self) -> list[range]:
        """The seed blocks in order, 10 per replicate."""
        return [self.seeds[begin : begin + self.block] for begin in range(0, len(self.seeds), self.block)]

    def pairs(self, block: range) -> range:
        """Return the first seeds of a block that are compared with the teacher's own; perhaps none."""
        place = (block.start - self.seeds.start) % self.samples
        return block[: max(0, min(len(block), self.paired - place))]

    @property
    def solved(self) -> int:
        """Images of a replicate that are compared with the exact solution, where that is asked for."""
        return BLOCKS * min(EXACT // BLOCKS, self.block)

    def solves(self, block: range) -> range:
        """Return the first seeds of a block that are compared with the exact solution, where that is asked for."""
        return block[: self.solved // BLOCKS]
