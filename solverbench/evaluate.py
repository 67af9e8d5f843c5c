"""One block of one cell: its images are made, judged and reduced to sums; nothing else is kept of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solverbench import solutions, targets
from solverbench.cells import Cell
from solverbench.metrics import Moments, quantise
from solverbench.perceptual import LPIPS
from solverbench.sampling import Fit, SampleError, Stop, Stopwatch, batches, decoded, peak_memory, sample
from solverbench.store import BlockResult, CellFolder

PICTURES = 8
"""Images kept of the first block of a cell, for the strips in a report."""


@dataclass(frozen=True)
class Work:
    """One block of one cell, to be done by a worker.

    Args:
        out: the results folder, for the teacher's endpoints and the exact solutions.
        stop: looked at before every batch.
    """

    cell: Cell
    folder: CellFolder
    block: range
    out: Path
    stop: Stop

    def __call__(self) -> dict[str, Any]:
        """Store the block's result; return its cost.

        Raises:
            SampleError: its samples can't be used; or whatever the network or the solver raises.
            StoreError, RecordError: the store can't be used.
            Stopped: the run is ending.
        """
        cell, teacher, batch = self.cell, self.cell.teacher, self.cell.protocol.batch
        pairs = cell.protocol.pairs(self.block)
        solves = cell.protocol.solves(self.block)
        remade: list[str] = []
        shared: dict[str, Any] = {"stop": self.stop, "say": remade.append}
        goal = targets.piece(teacher, cell.targets, pairs, self.out, batch=batch, **shared) if pairs else None
        exact = solutions.piece(teacher, solves, self.out, **shared) if cell.exact else None
        watch, fit, begun = Stopwatch(teacher.device), Fit(batch), time.perf_counter()
        result = self._evaluate(watch, fit, goal, exact)
        cost = {
            "seconds": time.perf_counter() - begun,
            "denoiser_seconds": watch.seconds,
            "images": len(self.block),
            "peak_memory_bytes": peak_memory(teacher.device),
            "batch": fit.most,
            "host": socket.gethostname(),
            "device": _device_name(teacher.device),
            **({"remade": remade} if remade else {}),
        }
        self.folder.write_block(self.block, result)
        return cost

    def _evaluate(
        self, watch: Stopwatch, fit: Fit, goal: torch.Tensor | None, exact: torch.Tensor | None
    ) -> BlockResult:
        cell, teacher = self.cell, self.cell.teacher
        assert cell.plan is not None
        features, pictures = [], []
        errors, distances, perceived = [np.empty(0)], [np.empty(0)], [np.empty(0)]
        judged, judging = teacher.evaluation, cell.protocol.judging
        rule = judged.quantiser if judged is not None else judging.quantiser or "edm-round"
        perceptual = judging.perceptual(teacher.device)
        done = 0

        def watched(denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            return cell.adapt(watch.watched(denoise))

        for part in batches(self.block, cell.protocol.batch):
            self.stop.check()
            states = sample(cell.plan, teacher, part, nfe=cell.nfe, watch=watched, fit=fit)
            images = decoded(teacher, states, fit)
            errors.append(self._squares(images, goal, done, fit))
            distances.append(self._squares(images, exact, done, fit))
            if perceptual is not None:
                perceived.append(self._perceived(perceptual, images, goal, done, fit))
            levels = quantise(images, rule)
            shown = PICTURES - done if self.block.start == cell.protocol.seeds.start and done < PICTURES else 0
            pictures.append(levels[:shown].cpu())
            if judged is not None:
                features.append(_features(judged.extractor(levels), part))
            done += len(part)
        kept = torch.cat(features).float().numpy() if judged is not None and judged.rows else None
        moments = Moments.of(torch.cat(features)) if features and kept is None else None
        strip = torch.cat(pictures)
        solved = None if exact is None else np.concatenate(distances)
        seen = None if perceptual is None else np.concatenate(perceived)
        return BlockResult(moments, np.concatenate(errors), cell.nfe, strip.numpy(), solved, kept, seen)

    def _squares(self, images: torch.Tensor, goal: torch.Tensor | None, done: int, fit: Fit) -> NDArray[np.float64]:
        """Mean squared difference to the images of `goal`, of which `done` came before; of its part alone."""
        if goal is None or done >= len(goal):
            return np.empty(0)
        return _errors(images, decoded(self.cell.teacher, goal[done : done + len(images)], fit))

    def _perceived(
        self, perceptual: LPIPS, images: torch.Tensor, goal: torch.Tensor | None, done: int, fit: Fit
    ) -> NDArray[np.float64]:
        """The perceptual distance to the images of `goal`, of which `done` came before; of its part alone."""
        if goal is None or done >= len(goal):
            return np.empty(0)
        near = decoded(self.cell.teacher, goal[done : done + len(images)], fit).to(images.device)
        return np.asarray(perceptual(images[: len(near)], near).numpy())


def _errors(images: torch.Tensor, near: torch.Tensor) -> NDArray[np.float64]:
    """Mean squared difference of each pair over its pixels; of the first images, as many as `near` has."""
    near = near.to(images.device)
    squares = (images[: len(near)].double() - near.double()) ** 2
    return np.asarray(squares.flatten(1).mean(1).cpu().numpy())


def _features(rows: torch.Tensor, part: range) -> torch.Tensor:
    if rows.shape[0] != len(part) or rows.dim() != 2:
        raise SampleError(f"the extractor returned {tuple(rows.shape)} for {len(part)} images; it must return [B, D]")
    if not rows.isfinite().all():
        raise SampleError(f"the extractor returned features that are not finite, within seeds {part.start}-{part[-1]}")
    return rows.cpu()


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"
