"""The teacher `mixture`: 100 Gaussians fitted to the digits, with an exact denoiser and unlimited exact samples.

A solver's error on it is pure discretisation error: there is no network error, and the ODE's solution is cheap.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solverbench.teachers.teacher import Teacher

FOLDER = Path(__file__).parent / "data"
FACTS = ("data_floor", "teacher_distance", "teacher_floor", "sampler_error", "digits_distance")


def load(device: str = "cpu", *, folder: Path = FOLDER) -> Teacher:
    """Return the teacher on `device`, evaluated on the features of the digits metric network.

    Args:
        folder: folder of its weights, references and record; the package's own by default.

    Raises:
        MissingError: a file doesn't exist.
        RecordError: a file differs from the recorded one, or the references belong to another mixture or metric.
    """
    from solverbench.files import digest
    from solverbench.method.schedules import EDM
    from solverbench.metrics.evaluation import Evaluation
    from solverbench.teachers.convergence import Comparison, Convergence
    from solverbench.teachers.embedded import artifacts as weights
    from solverbench.teachers.embedded import digits, judging
    from solverbench.teachers.embedded.mixture import density
    from solverbench.teachers.teacher import Teacher

    mixture, config = density.load(folder, device=device)
    record = weights.read_record(folder)
    metric = weights.digest(digits.FOLDER / "metric.safetensors")
    made_for = {"mixture": record["mixture"]["sha256"], "metric": metric}
    references = judging.references("mixture", folder, made_for, of="another mixture or metric network")
    return Teacher(
        denoise=mixture,
        name="mixture",
        shape=mixture.shape,
        schedule=EDM(),
        identity=digest({"weights": record["mixture"]["sha256"], "config": config}),
        sampler=references["teacher"]["sampler"],
        sampler_nfe=references["teacher"]["nfe"],
        sampler_error=Convergence(
            references["sampler_error"]["n"],
            f"from {references['teacher']['noise_seeds'].partition('-')[0]} on",
            (Comparison("the exact solution of its ODE", references["sampler_error"]["rmse"]),),
            references["teacher"]["asked"],
        ),
        evaluation=Evaluation(
            extractor=judging.Extractor(partial(digits.metric_network, digits.FOLDER, device)),
            extractor_id=f"digits-metric {metric[:12]}",
            quantiser=references["quantiser"],
            data=judging.reference(folder, references["data"], "sample_seeds", "exact samples of the mixture"),
            teacher=judging.reference(folder, references["teacher"], "noise_seeds", "mixture teacher's samples"),
            facts={name: references[name] for name in FACTS},
        ),
        device=device,
        move=lambda device: load(device, folder=folder),
        double=mixture,
        exact=True,
        images_of=lambda seeds: density.load(folder)[0].sample(seeds),
    )
