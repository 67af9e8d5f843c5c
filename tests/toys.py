"""A teacher that costs nothing: a Gaussian mixture's exact denoiser on 1x4x4 images, judged by a random projection."""

import functools
import math

import torch

from solverbench.errors import UserError
from solverbench.method.schedules import EDM
from solverbench.method.spec import make
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.frechet import Moments
from solverbench.metrics.quantise import quantise
from solverbench.sampling import endpoints
from solverbench.teachers.convergence import Comparison, Convergence
from solverbench.teachers.teacher import Teacher

SHAPE = (1, 4, 4)
_generator = torch.Generator().manual_seed(1)
MEANS = 0.6 * torch.randn(3, 16, generator=_generator).clamp(-1, 1)
PROJECTION = torch.randn(16, 5, generator=_generator) / 4
VARIANCE = 0.02


@functools.cache
def converged(sampler, nfe):
    """An error of a toy's sampler that keeps runs from measuring it; the true one of heun with 8 calls is 0.6."""
    try:
        asked = endpoints.goal(make(sampler), nfe, EDM()).asked
    except UserError:  # a sampler that the test wants refused
        return None
    return Convergence(64, "50000-50063", (Comparison("what it is", 0.0),), asked)


def denoise(x, sigma):
    """E[x0 | x] of the mixture of N(mean, VARIANCE I), equal weights; a gradient goes through x alone."""
    s2 = float(torch.as_tensor(sigma).detach()) ** 2 + VARIANCE
    rows = x.flatten(1)
    gaps = ((rows[:, None] - MEANS.to(rows)) ** 2).sum(2)
    weights = torch.softmax(-gaps / (2 * s2), dim=1)
    means = weights @ MEANS.to(rows)
    return (means + VARIANCE / s2 * (rows - means)).reshape(x.shape)


def extractor(images):
    """[B, 5] from uint8 [B, 1, 4, 4]."""
    return (images.flatten(1).float() / 127.5 - 1) @ PROJECTION


def data(n, seed=0):
    """[n, 1, 4, 4] draws of the mixture."""
    generator = torch.Generator().manual_seed(seed)
    means = MEANS[torch.randint(3, (n,), generator=generator)]
    return (means + math.sqrt(VARIANCE) * torch.randn(n, 16, generator=generator)).reshape(n, *SHAPE)


def teacher(denoise=denoise, *, extractor=extractor, identity="toy", name="toy", **changes):
    """The toy teacher, with another network or extractor if asked."""
    moments = Moments.of(globals()["extractor"](quantise(data(5000))))
    facts = {
        "teacher_distance": {"mean": 0.01, "low": 0.009, "high": 0.011, "n": 10_000},
        "data_floor": {"mean": 0.001, "low": 0.0009, "high": 0.0011, "n": 10_000},
    }
    evaluation = Evaluation(
        extractor,
        "toy-projection",
        "edm-round",
        Reference(moments, "toy data", "d" * 64),
        Reference(moments, "toy samples", "e" * 64),
        facts,
    )
    options = {"sampler": "heun", "sampler_nfe": 8, "evaluation": evaluation} | changes
    options.setdefault("sampler_error", converged(options["sampler"], options["sampler_nfe"]))
    return Teacher(denoise, name, SHAPE, identity=identity, **options)


OWN = ("timing.json", "origin.json")
"""Files that say how results came about: two stores with the same results have other ones."""


def files_of(folder, *, pattern="**/*"):
    """The bytes of every result file under `folder` by relative path: no times, reports or leftovers of a crash."""
    kept = (p for p in folder.glob(pattern) if p.is_file() and p.name not in OWN and p.suffix != ".part")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(kept) if "reports" not in p.parts}
