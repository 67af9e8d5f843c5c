"""Makes what the shapes teacher's samples are judged by: moments of the data and of its own many-step samples.

python -m solverbench.shapes.references --out FOLDER --device cpu, where FOLDER holds the trained weights.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench.digits import weights
from solverbench.digits.references import chunks, moments_of, spread, total_of, write_moments
from solverbench.errors import UserError
from solverbench.execution import execute
from solverbench.metrics import Moments, frechet
from solverbench.schedules import EDM
from solverbench.seeds import label, noise
from solverbench.shapes import conditioned, data, denoiser, metric
from solverbench.spec import make
from solverbench.tableaux import Plan
from solverbench.tracing import tableau

SET = 2_000
"""Images in each of the disjoint sets whose distances are taken."""
NOISE_SEEDS = range(1_000_000, 1_020_000)
"""Noise of the teacher's samples: their classes are the seeds modulo 10."""
GUIDANCE = (1.0, 2.0)
"""Guidance whose samples get a reference of their own."""
DATA_FILE = "reference-data.npz"


def teacher_file(guidance: float) -> str:
    """Return the name of the file with the moments of the samples at this guidance."""
    return f"reference-teacher-{guidance:g}.npz"


def samples(
    bind: Callable[[range], Callable[[Tensor, Tensor], Tensor]], plan: Plan, seeds: range, batch: int, device: str
) -> Iterator[tuple[range, Tensor]]:
    """Yield the images [batch, 3, 16, 16] in [-1, 1] that `plan` makes from the noise of `seeds`, and which they are."""
    for part in chunks(seeds, batch):
        yield part, execute(plan, bind(part), noise(part, data.SHAPE).to(device))
