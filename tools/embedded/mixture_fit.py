"""Fits the mixture on augmented digits by expectation maximisation, in float64.

python -m tools.embedded.mixture_fit --out FOLDER, then mixture_references. Takes half a minute on one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from solverbench.teachers.embedded import artifacts as weights
from solverbench.teachers.embedded.digits import data
from solverbench.teachers.embedded.mixture.density import FILE, Mixture

from . import commands

COPIES_STREAM = 4 << 40
"""First seed of the digit copies that the mixture is fitted on; separate from the streams of the digits networks."""
FRESH_SEEDS = data.VALIDATION_SEEDS[:10_000]
"""Seeds of the copies that its likelihood is checked on."""


def fit(
    images: Tensor, *, components: int, iterations: int, floor: float, seed: int, say: Callable[[str], None]
) -> tuple[Mixture, list[float]]:
    """Return the mixture and the mean log likelihood (nats per image) before each iteration.

    Starts from `components` images drawn as in k-means++, each with a quarter of the images' variance. Stops early
    when an iteration gains less than 1e-4 nats per image.

    Args:
        images: [N, C, H, W].
        floor: smallest variance of a pixel, because pixels that are always blank have no variance of their own.
        say: callback for occasional progress lines.

    Source: Dempster, Laird & Rubin 1977 (EM); Arthur & Vassilvitskii 2007 (k-means++).
    """
    rows = images.flatten(1).double()
    means = rows[_spread_out(rows, components, torch.Generator().manual_seed(seed))]
    variances = (rows.var(0) / 4).clamp(min=floor).expand(components, -1)
    chances = rows.new_full((components,), 1 / components)
    mixture = Mixture(chances, means, variances, (images.shape[1], images.shape[2], images.shape[3]))
    history: list[float] = []
    for iteration in range(iterations):
        history.append(mixture.log_density(images).mean().item())
        if iteration % 20 == 0:
            say(f"mixture: iteration {iteration}, {history[-1]:.4f} nats per image")
        if iteration and history[-1] - history[-2] < 1e-4:
            break
        mixture = improved(mixture, images, floor)
    return mixture, history


def improved(mixture: Mixture, images: Tensor, floor: float) -> Mixture:
    """Return the mixture after one EM step: at least as likely, unless the variance floor applies."""
    rows = images.flatten(1).double()
    posterior = mixture.posterior(images)
    counts = posterior.sum(0).clamp(min=1e-9)[:, None]
    means = posterior.T @ rows / counts
    variances = (posterior.T @ rows.square() / counts - means.square()).clamp(min=floor)
    return Mixture((counts / counts.sum())[:, 0], means, variances, mixture.shape)


def _spread_out(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` row indices, each drawn with weight equal to its squared distance to the nearest earlier one."""
    chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    nearest = (rows - rows[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
        nearest = torch.minimum(nearest, (rows - rows[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def make(out: Path, *, components: int, copies: int, iterations: int, floor: float, say: Callable[[str], None]) -> None:
    """Fit the mixture and write it into `out`, with its section of the record."""
    started, seed = time.monotonic(), 5
    digits = data.load()
    images = digits.copies(range(COPIES_STREAM, COPIES_STREAM + copies)).images
    mixture, history = fit(images, components=components, iterations=iterations, floor=floor, seed=seed, say=say)
    channels, height, width = data.SHAPE
    tensors = {"weights": mixture.weights, "means": mixture.means, "variances": mixture.variances}
    config = {"channels": channels, "height": height, "width": width, "components": components, "floor": floor}
    sha = weights.write(out / FILE, {name: tensor.float() for name, tensor in tensors.items()}, config)
    fresh = mixture.log_density(digits.copies(FRESH_SEEDS).images).mean().item()
    facts = {
        "config": config,
        "copies": {"first_seed": COPIES_STREAM, "n": copies, "digits": "all"},
        "start_seed": seed,
        "iterations": len(history),
        "log_likelihood": {"unit": "nats per image", "fitted": history[-1], "fresh": fresh, "start": history[0]},
        "smallest_weight": mixture.weights.min().item(),
        "variances_at_the_floor": (mixture.variances <= floor).double().mean().item(),
        "seconds": round(time.monotonic() - started, 1),
        "made": weights.environment(torch.device("cpu")),
        "sha256": sha,
    }
    weights.add_to_record(out, "mixture", facts)
    say(f"mixture: {components} components, {history[-1]:.3f} nats per image ({fresh:.3f} on fresh copies)")


def main(arguments: list[str] | None = None) -> int:
    """Fit the mixture into --out; return the exit code."""
    parser = commands.parser("mixture_fit", __doc__, "folder of the products", device=False)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--copies", type=int, default=40_000, help="augmented digits that it is fitted on")
    parser.add_argument("--iterations", type=int, default=100, help="at most")
    parser.add_argument("--floor", type=float, default=0.0025, help="smallest variance of a pixel")
    return commands.run(parser, arguments, lambda options, say: make(**vars(options), say=say))


if __name__ == "__main__":
    sys.exit(main())
