"""Trains a discriminator alone to tell a solver's images from the teacher's, and prints how well it does on others.

python benchmarks/two_samples.py --out FOLDER --solvers gs,ipndm --nfe 4 [--teacher shapes] [--steps 3000]

What no discriminator sees, an adversarial loss can't mend. The network is GAS's of the recipe for the teacher, trained
by cross entropy without penalties. It sees the training pairs' teacher images, and the solver's images of fresh noises.
Each line has the area under the ROC curve on images it has not seen: .5 is chance, 1 tells all of them apart. The
teacher itself, from other noises, is the control. FOLDER is a results folder, whose teacher images and trained solvers
are used; nothing else is written there.

Source: Lopez-Paz & Oquab 2017, arXiv:1610.06545 (classifier two-sample tests).
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

import solverbench as sb
from solverbench import seeds
from solverbench.errors import UserError
from solverbench.learned import recipes, trained_files
from solverbench.learned.training import discriminators
from solverbench.learned.training.adversarial import Discriminator
from solverbench.learned.training.run import TrainingRun
from solverbench.method.spec import expand
from solverbench.sampling.endpoints import endpoints
from solverbench.sampling.sample import BATCH, batches, sample
from solverbench.teachers.teacher import Teacher

CONTROL = "teacher"
FRESH = 20_000
"""First of the noises of the images to tell apart, among those that recipes may use and no shipped one does."""
SHOWN = 6
"""Number of lines for each solver."""


def images(name: str, nfe: int, teacher: Teacher, chosen: range, out: Path) -> Tensor:
    """Return the images [len(chosen), ...] of a solver, or of the teacher's own sampler."""
    if name == CONTROL:
        return teacher.images(endpoints(teacher, chosen, out))
    plan = sb.tableau(name, nfe=nfe, teacher=teacher, out=out).plan_from_noise(teacher.schedule)
    return torch.cat([teacher.images(sample(plan, teacher, part, nfe=nfe)) for part in batches(chosen, BATCH)])


def area(real: Tensor, fake: Tensor) -> float:
    """Return the area under the ROC curve: how often a real image's score [R] is above a fake one's [F], ties half."""
    above = mannwhitneyu(real.numpy(), fake.numpy(), method="asymptotic").statistic
    return float(above) / (len(real) * len(fake))


def error(value: float, real: int, fake: int) -> float:
    """Return the standard error of `area`; source: Hanley & McNeil 1982, Radiology 143, equation 1."""
    first, second = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (real - 1) * (first - value**2) + (fake - 1) * (second - value**2)
    return math.sqrt(variance / (real * fake))


@torch.no_grad()
def scores(network: Discriminator, shown: Tensor) -> Tensor:
    """Return the network's scores [B] of images."""
    return torch.cat([network(part).flatten() for part in shown.split(BATCH)])


def main(arguments: list[str] | None = None) -> int:
    """Print the areas; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/two_samples.py", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="results folder")
    parser.add_argument("--teacher", default="shapes")
    parser.add_argument("--solvers", default="gs", help="specs, joined with commas")
    parser.add_argument("--nfe", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32, help="images of each kind in a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        solvers = expand(given.solvers)
        teacher = sb.load_teacher(given.teacher, out=given.out)
        for name in solvers:
            sb.tableau(name, nfe=given.nfe, teacher=teacher, out=given.out)
        recipe = recipes.chosen(trained_files.learned("gas"), teacher)
        half = len(recipe.train) // 2
        seen = images(CONTROL, given.nfe, teacher, recipe.train, given.out)
        unseen = images(CONTROL, given.nfe, teacher, recipe.validation, given.out)
        for name in [CONTROL, *solvers]:
            job = TrainingRun(trained_files.learned("gas"), given.nfe, teacher, recipe, 0)
            network = discriminators.make(job).requires_grad_(True)
            optimiser = torch.optim.Adam(network.parameters(), lr=given.rate)
            if name == CONTROL:  # half of the teacher's images against the others
                real, fake, other = seen[:half], seen[half:], unseen[len(unseen) // 2 :]
                mine = unseen[: len(unseen) // 2]
            else:
                chosen = range(FRESH, FRESH + len(seen) + len(unseen))
                made = images(name, given.nfe, teacher, chosen, given.out)
                real, fake, mine, other = seen, made[: len(seen)], unseen, made[len(seen) :]
            generator = seeds.generator(0, "two samples", 0)
            for step in range(1, given.steps + 1):
                picks = [torch.randint(len(kind), (given.batch,), generator=generator) for kind in (real, fake)]
                logits = network(torch.cat((real[picks[0]], fake[picks[1]]))).flatten()
                told = torch.cat((torch.ones(given.batch), torch.zeros(given.batch)))
                optimiser.zero_grad()
                binary_cross_entropy_with_logits(logits, told).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                if step % max(given.steps // SHOWN, 1) == 0:
                    known = area(scores(network, real), scores(network, fake))
                    value = area(scores(network, mine), scores(network, other))
                    spread = error(value, len(mine), len(other))
                    print(f"{name} step {step}: seen {known:.3f}, unseen {value:.3f} ± {1.96 * spread:.3f}", flush=True)
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
