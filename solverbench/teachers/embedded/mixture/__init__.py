"""The teacher `mixture`: 100 Gaussians fitted on the digits, whose denoiser is exact and whose samples never end.

What a solver loses on it is discretisation error alone: there is no network error, and the ODE's solution is cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solverbench.teachers.teacher import Teacher

FOLDER = Path(__file__).parent / "data"
FACTS = ("data_floor", "teacher_distance", "teacher_floor", "sampler_error", "digits_distance")


def load(device: str = "cpu", *, folder: Path = FOLDER) -> Teacher:
    """Return the teacher on `device`, judged on the features of the digits metric network.

    Args:
        folder: of its weights, references and record; the package's own by default.

    Raises:
        MissingError: a file isn't there.
        RecordError: a file isn't the one that the record names, or the references are of another mixture.
    """
    from solverbench.errors import RecordError
    from solverbench.files import digest
    from solverbench.method.schedules import EDM
    from solverbench.metrics.evaluation import Evaluation
    from solverbench.teachers.embedded import artifacts as weights
    from solverbench.teachers.embedded import digits
    from solverbench.teachers.embedded.mixture import density
    from solverbench.teachers.teacher import Teacher

    mixture, config = density.load(folder, device=device)
    record = weights.read_record(folder)
    references = record.get("references", {})
    metric = weights.digest(digits.FOLDER / "metric.safetensors")
    if references.get("weights_sha256") != {"mixture": record["mixture"]["sha256"], "metric": metric}:
        raise RecordError(
            f"mixture: the references in {folder} are of another mixture or metric network; "
            f"run python -m tools.embedded.mixture_references --out {folder}"
        )
    return Teacher(
        denoise=mixture,
        name="mixture",
        shape=mixture.shape,
        schedule=EDM(),
        identity=digest({"weights": record["mixture"]["sha256"], "config": config}),
        sampler=references["teacher"]["sampler"],
        sampler_nfe=references["teacher"]["nfe"],
        evaluation=Evaluation(
            extractor=digits.Extractor(digits.FOLDER, device),
            extractor_id=f"digits-metric {metric[:12]}",
            quantiser=references["quantiser"],
            data=digits.reference(folder, references["data"], "sample_seeds", "exact samples of the mixture"),
            teacher=digits.reference(folder, references["teacher"], "noise_seeds", "mixture teacher's samples"),
            facts={name: references[name] for name in FACTS},
        ),
        device=device,
        move=lambda device: load(device, folder=folder),
        double=mixture,
        exact=True,
    )
