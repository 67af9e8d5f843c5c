"""The embedded teacher `shapes`: a class-conditional U-Net of 16x16 colour images, with all that judges its samples.

Training code reaches `shapes.loss` through `load_loss`, and must never import `shapes.metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from solverbench.shapes.denoiser import Denoiser, Double
    from solverbench.shapes.loss import LossNet
    from solverbench.shapes.metric import MetricNet
    from solverbench.teachers import Evaluation, Teacher

FOLDER = Path(__file__).parent / "data"
FACTS = ("data_floor", "teacher_distance", "teacher_floor")
POLICIES = ("seed", "any")


def load(device: str = "cpu", *, guidance: float = 1.0, classes: str = "seed", folder: Path = FOLDER) -> Teacher:
    """Return the teacher on `device`, with its evaluation.

    Args:
        guidance: w in e_u + w (e_c - e_u): 1 follows the class as the network does, 0 is the unconditional estimate.
        classes: `seed`, an image's class is its seed modulo 10; or `any`, no image is told one.
        folder: of its weights, references and record; the package's own by default.

    Raises:
        SpecError: an option out of range.
        MissingError: a file isn't there.
        RecordError: a file isn't the one that the record names, or the references are of other weights.
    """
    from solverbench.digits import weights
    from solverbench.errors import RecordError, SpecError
    from solverbench.files import digest
    from solverbench.schedules import EDM
    from solverbench.shapes import data, denoiser
    from solverbench.teachers import Teacher

    if not 0 <= guidance < float("inf"):
        raise SpecError(f"shapes: guidance={guidance:g}: not a finite number of at least 0; 1 is none, 2 is strong")
    if classes not in POLICIES:
        raise SpecError(f"shapes: classes={classes}: not a policy; use {' or '.join(POLICIES)}")
    if classes == "any":
        guidance = 0.0
    network = denoiser.load(folder, device=device)
    record = weights.read_record(folder)
    references = record.get("references", {})
    made_for = references.get("weights_sha256")
    if made_for != {name: record.get(name, {}).get("sha256") for name in ("teacher", "metric")}:
        raise RecordError(
            f"shapes: the references in {folder} are of other weights; "
            f"run python -m solverbench.shapes.references --out {folder}"
        )
    condition = {} if guidance == 1 else {"guidance": guidance}
    bind = conditioned(network, guidance, device)
    return Teacher(
        denoise=bind(range(0, data.CLASSES)) if guidance == 0 else network,
        name="shapes",
        shape=data.SHAPE,
        schedule=EDM(),
        identity=digest({"weights": record["teacher"]["sha256"], "config": network.config} | condition),
        sampler=references["sampler"],
        sampler_nfe=references["nfe"],
        evaluation=_evaluation(folder, device, record, guidance),
        device=device,
        move=lambda device: load(device, guidance=guidance, classes=classes, folder=folder),
        bind=None if guidance == 0 else bind,
        passes=passes(guidance),
    )


def load_loss(device: torch.device | str = "cpu", *, folder: Path = FOLDER) -> LossNet:
    """Return the network to train on: images [B, 3, 16, 16] in [-1, 1] to feature vectors [B, D], differentiable."""
    from solverbench.shapes import loss

    return loss.load(folder, device=device)


def passes(guidance: float) -> int:
    """Return the rows through the network per image and call: both estimates, or the only one that counts."""
    return 1 if guidance in (0, 1) else 2


def conditioned(
    network: Denoiser | Double, guidance: float, device: str
) -> Callable[[Sequence[int]], Callable[[Tensor, Tensor], Tensor]]:
    """Return seeds [B] -> the denoiser of the images with these seeds: class = seed modulo 10, led by `guidance`.

    Source: Ho & Salimans 2022, arXiv:2207.12598, equation 6, with w counted from 1; a mix of noise estimates and the
    same mix of data estimates are one, as both are affine in the other.
    """
    import torch

    from solverbench.shapes.data import CLASSES
    from solverbench.shapes.denoiser import NULL

    def bind(seeds: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        given = torch.tensor([seed % CLASSES for seed in seeds], device=device)
        if guidance == 1:
            return lambda x, sigma: network(x, sigma, given)
        if guidance == 0:
            return lambda x, sigma: network(x, sigma)
        both = torch.cat((torch.full_like(given, NULL), given))

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            free, led = network(torch.cat((x, x)), sigma, both).chunk(2)
            return free + guidance * (led - free)

        return guided

    return bind
