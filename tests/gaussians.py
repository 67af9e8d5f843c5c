"""A family as small as can be: Gaussians in a safetensors file, one per class, with an unconditional mixture of them.

It shows what a family has to do, and its denoisers are exact: `register()` puts it in the registry for a test.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from solverbench import registries
from solverbench.errors import RecordError
from solverbench.files import digest
from solverbench.method.schedules import EDM
from solverbench.teachers.conditions import Guided, passes
from solverbench.teachers.teacher import Teacher


@dataclass(frozen=True)
class Settings:
    """The family's own options."""

    variance: float = 0.05
    doubled: bool = False
    """Decode to images of twice the size."""


def write(path, means, family="gaussian"):
    """Write a checkpoint: `means` [K, C, H, W], one per class."""
    save_file({"means": means.contiguous()}, path, {"family": family})
    return path


def recognises(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return False
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("family") == "gaussian"


def load(description, device):
    settings = description.settings(Settings)
    with safe_open(description.checkpoint, "pt") as file:
        if list(file.keys()) != ["means"]:
            raise RecordError(
                asked=description.checkpoint,
                wrong=f"holds {', '.join(file.keys())}, not means",
                remedy="give a file of means",
            )
        means = file.get_tensor("means").to(device)
    condition = description.condition(count=len(means), absent=True)
    shape = tuple(means.shape[1:])

    def posterior(x, sigma, told):
        """E[x0 | x] of the Gaussian that `told` [B, K] picks, or of the equal mixture where its row is 0."""
        v = settings.variance + float(sigma) ** 2
        gaps = (x[:, None] - means).flatten(2).square().sum(2)
        weights = torch.softmax(-gaps / (2 * v) + told.log(), 1)
        mean = torch.einsum("bk,kchw->bchw", weights, means)
        return mean + settings.variance / v * (x - mean)

    def bind(seeds):
        classes = condition.labels(seeds, shape)
        given = torch.nn.functional.one_hot(torch.tensor(classes), len(means)).float().to(device)
        free = torch.ones_like(given)
        return Guided(lambda x, t, told: posterior(x, t, *told), (given,), (free,), condition.guidance)

    return Teacher(
        denoise=lambda x, sigma: posterior(x, sigma, torch.ones(len(x), len(means), device=x.device)),
        name=description.name,
        shape=shape,
        schedule=EDM(description.sigma_min or 0.002, description.sigma_max or 80.0),
        identity=digest({"weights": hashlib.sha256(description.checkpoint.read_bytes()).hexdigest(),
                         **dataclasses.asdict(settings)}),
        sampler=description.sampler or "heun",
        sampler_nfe=description.sampler_nfe or 8,
        device=device,
        move=lambda device: load(description, device),
        bind=bind,
        decode=(lambda x: x.repeat_interleave(2, -1).repeat_interleave(2, -2)) if settings.doubled else None,
        passes=passes(condition.guidance, absent=True),
        condition=condition,
        arithmetic=description.arithmetic.label,
    )  # fmt: skip


def register():
    if "gaussian" not in registries.families:
        registries.families.register("gaussian", load)
