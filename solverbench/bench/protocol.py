"""The images of each cell, divided into replicates and seed blocks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from solverbench import seeds
from solverbench.bench.run_options import AUTO, NUMBERS, RunOptions
from solverbench.errors import UserError
from solverbench.evaluation import selection
from solverbench.evaluation.selection import MetricSelection
from solverbench.metrics.reduction import BLOCKS as BLOCKS
from solverbench.sampling.sample import BATCH

SAMPLES, REPLICATES, PAIRED = 10_000, 3, 2_000
"""Default images per replicate, replicates, and images per replicate compared with the teacher's own samples."""


EXACT = 1000
"""Images per replicate compared with the exact solution, if requested: the first hundred of each block."""


MOST = 10_000_000
"""Maximum number of images of a cell: 200 times a paper's 50 000."""

ACCOUNTED = frozenset({"samples", "replicates", "protocol", "seeds", "full", "exact", "batch", "device"})
"""Options that `Cell.key` holds in another form; every other option of NUMBERS is added to the key unchanged."""


@dataclass(frozen=True)
class Protocol:
    """The images of a cell and their division into replicates and blocks.

    Args:
        seeds: seeds of all images: consecutive, replicate after replicate.
        samples: images per replicate, a multiple of 10.
        batch: images per denoiser call.
        judging: requested metrics.
        options: requested options, only those of NUMBERS.
    """

    seeds: range
    samples: int
    batch: int
    judging: MetricSelection = field(default_factory=MetricSelection)
    options: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def of(cls, options: RunOptions) -> Protocol:
        """Return the protocol of a user's options; the batch `auto` is the default one here.

        Raises:
            UserError: numbers that are out of range or contradict each other; metrics that can't be measured.
        """
        judging = MetricSelection.of(options.metrics, options.reference, options.extractor, options.quantiser)
        samples, replicates = selection.protocol(options.protocol, options.samples, options.replicates, SAMPLES)
        chosen, batch = options.seeds, _number(options.batch)
        if samples < BLOCKS or samples % BLOCKS:
            near = max(round(samples / BLOCKS), 1) * BLOCKS
            raise UserError(
                asked=f"samples {samples}",
                wrong=f"not a positive multiple of {BLOCKS} (seed blocks)",
                remedy=f"use {near}",
            )
        if replicates is not None and replicates < 1:
            raise UserError(
                asked=f"replicates {replicates}", wrong="at least one is needed", remedy=f"use {REPLICATES}"
            )
        if batch is not None and batch < 1:
            raise UserError(asked=f"batch {batch}", wrong="at least one image is needed", remedy=f"use {BATCH}")
        if batch is not None and batch > MOST:
            raise UserError(asked=f"batch {batch}", wrong=f"more than {MOST} images", remedy=f"use {BATCH}")
        if samples * (replicates or REPLICATES) > MOST:
            raise UserError(
                asked=f"samples {samples} x {replicates or REPLICATES}",
                wrong=f"more than {MOST} images",
                remedy="ask for fewer",
            )
        if isinstance(chosen, str):
            chosen = seeds.parse(chosen)
            if len(chosen) > MOST:
                raise UserError(
                    asked=f"seeds {seeds.label(chosen)}", wrong=f"more than {MOST} images", remedy="ask for fewer"
                )
        if chosen is None:
            chosen = range(seeds.EVALUATION_START, seeds.EVALUATION_START + samples * (replicates or REPLICATES))
        if len(chosen) % samples or replicates not in (None, len(chosen) // samples):
            wanted = samples * (replicates or max(len(chosen) // samples, 1))
            raise UserError(
                asked=f"seeds {seeds.label(chosen)}",
                wrong=f"{len(chosen)} seeds are not {replicates or 'a whole number of'} replicates of {samples}",
                remedy=f"use {seeds.label(range(chosen.start, chosen.start + wanted))}, or other samples",
            )
        return cls(chosen, samples, batch or BATCH, judging, options.of_numbers)

    def settle(self, options: RunOptions) -> RunOptions:
        """Return the options with this protocol's numbers instead of names, defaults and `auto`."""
        metrics, label = self.judging.metrics or None, seeds.label(self.seeds)
        settled = replace(options, samples=self.samples, replicates=None, protocol=None, metrics=metrics)
        return replace(settled, seeds=label, batch=self.batch)

    @property
    def extra(self) -> dict[str, Any]:
        """Options that change numbers, differ from their defaults and appear nowhere else in a cell's key."""
        return {name: value for name, value in self.options.changed(NUMBERS).items() if name not in ACCOUNTED}

    @property
    def key(self) -> dict[str, Any]:
        """The protocol's part of a cell's key."""
        label = seeds.label(self.seeds)
        return {"seeds": label, "samples": self.samples, "block": self.block, "paired": self.paired, **self.extra}

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
        """Number of a replicate's first images that are compared with the teacher's own."""
        return self.samples if self.options.full else min(PAIRED, self.samples)

    @property
    def blocks(self) -> list[range]:
        """The seed blocks in order, 10 per replicate."""
        return [self.seeds[begin : begin + self.block] for begin in range(0, len(self.seeds), self.block)]

    def pairs(self, block: range) -> range:
        """Return the first seeds of a block, those compared with the teacher's own samples; may be empty."""
        place = (block.start - self.seeds.start) % self.samples
        return block[: max(0, min(len(block), self.paired - place))]

    @property
    def solved(self) -> int:
        """Images per replicate that are compared with the exact solution, if requested."""
        return BLOCKS * min(EXACT // BLOCKS, self.block)

    def solves(self, block: range) -> range:
        """Return the first seeds of a block, those compared with the exact solution, if requested."""
        return block[: self.solved // BLOCKS]


def _number(batch: int | str | None) -> int | None:
    if batch is None or batch == AUTO:
        return None
    try:
        return int(batch)
    except ValueError:
        raise UserError(
            asked=f"batch {batch!r}",
            wrong=f"neither a number of images nor {AUTO}",
            remedy=f"give a number such as {BATCH}",
        ) from None
