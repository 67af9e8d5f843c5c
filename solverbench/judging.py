"""What images are measured by, as a user asks: metrics, extractor, reference and quantiser; a teacher judged so."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solverbench import references
from solverbench.errors import MissingError, UserError
from solverbench.features import NEIGHBOURS
from solverbench.fid import Inception
from solverbench.metrics import QUANTISERS
from solverbench.perceptual import LPIPS
from solverbench.teachers import OWN, Evaluation, Teacher

INCEPTION = ("fid", "fid_inf", "kid", "precision", "recall", "inception_score")
"""Of Inception features, which are comparable with papers."""

FEATURES = (*OWN, "frechet_data_inf", "kernel_data", "precision_data", "recall_data")
"""The same of a teacher's own features, under names of their own."""

PAIRS = ("psnr_teacher", "lpips_teacher")
"""Against the teacher's own sample from the same noise, like rmse_teacher, which is always measured."""

VECTORS = ("kid", "precision", "recall", "inception_score", "kernel_data", "precision_data", "recall_data")
"""Those that need each block's feature vectors; all but the Inception score need the reference's too."""

UNBIASED = ("kid", "kernel_data", "fid_inf", "frechet_data_inf")
"""Of features, yet meant to be the same at any number of images."""

PROTOCOLS = {"smoke": (250, 1), "quick": (5_000, 1), "paper": (50_000, 1)}
"""Name to (images, replicates)."""

FULL = 50_000
"""Images of a replicate below which an FID is called biased: the papers' number."""


@dataclass(frozen=True)
class Judging:
    """What is measured, beside RMSE.

    Args:
        metrics: names; empty for what the teacher itself comes with.
        reference: name or file of real images' statistics; None for the teacher's own, or the one stored in its name.
        extractor: of Inception features: legacy_tensorflow or clean.
        quantiser: from float to uint8; None for the teacher's, or edm-round.
    """

    metrics: tuple[str, ...] = ()
    reference: str | None = None
    extractor: str | None = None
    quantiser: str | None = None

    @classmethod
    def of(
        cls,
        metrics: str | Sequence[str] | None,
        reference: str | None = None,
        extractor: str | None = None,
        quantiser: str | None = None,
    ) -> Judging:
        """Return what a user asked for.

        Raises:
            UserError: a name that isn't known, metrics of two sets of features, or an option that nothing would use.
        """
        listed = metrics.split(",") if isinstance(metrics, str) else list(metrics or ())
        names = tuple(dict.fromkeys(name.strip() for name in listed))
        known = (*INCEPTION, *FEATURES, *PAIRS, "rmse_teacher")
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(f"metric {name!r}: not known; {hint}Known are {', '.join(known)}")
        theirs, ours = _of(names, INCEPTION), _of(names, FEATURES)
        if theirs and ours:
            raise UserError(
                f"metrics {', '.join(theirs)} and {', '.join(ours)}: of two sets of features; run once for each, with "
                "the same --out"
            )
        if quantiser is not None and quantiser not in QUANTISERS:
            raise UserError(f"quantiser {quantiser!r}: not known; use {' or '.join(QUANTISERS)}")
        for flag, value in (("reference", reference), ("extractor", extractor)):
            if value is not None and not (theirs or (ours and flag == "reference")):
                raise UserError(f"--{flag} {value}: no metric asked for uses it; add --metrics fid, or leave it out")
        return cls(tuple(name for name in names if name != "rmse_teacher"), reference, extractor, quantiser)

    @property
    def pairs(self) -> tuple[str, ...]:
        """The metrics over pairs of images, beside RMSE."""
        return _of(self.metrics, PAIRS)

    @property
    def key(self) -> dict[str, Any]:
        """What it adds to a cell's key beside the evaluation; nothing by default."""
        if not self.pairs:
            return {}
        return {"pairs": list(self.pairs), **({"lpips": LPIPS.identity} if "lpips_teacher" in self.pairs else {})}

    @property
    def selection(self) -> dict[str, Any]:
        """What was asked for, as plain JSON values; nothing by default."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}

    @property
    def flags(self) -> list[str]:
        """It as words of a command line."""
        metrics = {**self.selection, "metrics": ",".join(self.metrics)}
        return [word for key, value in metrics.items() if value for word in (f"--{key}", str(value))]

    def perceptual(self, device: str) -> LPIPS | None:
        """Return the perceptual distance if it is asked for.

        Raises:
            MissingError: its package isn't there.
        """
        return LPIPS(device) if "lpips_teacher" in self.pairs else None

    def of_teacher(self, teacher: Teacher, samples: int, block: int, out: Path) -> Teacher:
        """Return `teacher`, judged as asked.

        Args:
            samples: images of a replicate.
            block: images of a seed block.
            out: the results folder, where references are looked for first.

        Raises:
            UserError, MissingError, RecordError, FeatureError: it can't be judged so, said before any work.
        """
        self.perceptual(teacher.device)
        if not self.metrics:
            judged = teacher.evaluation
            if judged is None or self.quantiser is None:
                return teacher
            return dataclasses.replace(teacher, evaluation=dataclasses.replace(judged, quantiser=self.quantiser))
        theirs, ours = _of(self.metrics, INCEPTION), _of(self.metrics, FEATURES)
        evaluation = None
        if theirs:
            evaluation = self._inception(teacher, theirs, samples, out)
        elif ours:
            evaluation = self._own(teacher, ours, out)
        if evaluation is not None:
            _check_images(evaluation, samples, block)
        return dataclasses.replace(teacher, evaluation=evaluation)

    def _inception(self, teacher: Teacher, metrics: tuple[str, ...], samples: int, out: Path) -> Evaluation:
        network = Inception(self.extractor or "legacy_tensorflow", teacher.device)
        try:
            reference = references.load(self.reference or teacher.name, out, network.identity)
        except MissingError as error:
            if self.reference is not None:
                raise
            raise MissingError(f"{error}; or name another one with --reference") from None
        if reference.moments.mean.size != network.size:
            raise UserError(
                f"reference {reference.name}: of {reference.moments.mean.size} features, but {network.identity} gives "
                f"{network.size}; give a reference of that extractor"
            )
        few = samples * 9 <= network.size * 10  # with a block left out there are fewer images than features
        return Evaluation(
            extractor=network,
            extractor_id=network.identity,
            quantiser=self.quantiser or (teacher.evaluation.quantiser if teacher.evaluation else "edm-round"),
            data=reference,
            teacher=None,
            metrics=metrics,
            rows=few or bool(_of(metrics, VECTORS)),
            full=FULL,
            probabilities=network.probabilities,
        )

    def _own(self, teacher: Teacher, metrics: tuple[str, ...], out: Path) -> Evaluation:
        judged = teacher.evaluation
        if judged is None:
            raise UserError(
                f"metrics {', '.join(metrics)}: teacher {teacher.name!r} comes with no features of its own; "
                "ask for --metrics fid"
            )
        if self.reference is not None:
            judged = dataclasses.replace(judged, data=references.load(self.reference, out, judged.extractor_id))
        return dataclasses.replace(
            judged, quantiser=self.quantiser or judged.quantiser, metrics=metrics, rows=bool(_of(metrics, VECTORS))
        )


def protocol(name: str | None, samples: int | None, replicates: int | None, default: int) -> tuple[int, int | None]:
    """Return images and replicates of the protocol `name`, as far as the user doesn't say otherwise.

    Args:
        default: images without a protocol; its replicates then aren't settled here.

    Raises:
        UserError: no such protocol.
    """
    if name is None:
        return default if samples is None else samples, replicates
    if name not in PROTOCOLS:
        raise UserError(f"protocol {name!r}: not known; use {', '.join(PROTOCOLS)}")
    images, sets = PROTOCOLS[name]
    return images if samples is None else samples, sets if replicates is None else replicates


def full(metric: str, teacher: Teacher) -> int:
    """Return the images of a replicate below which `metric` is called biased; 0 for one that never is."""
    biased = metric in (*INCEPTION, *FEATURES) and metric not in UNBIASED
    return teacher.evaluation.full if biased and teacher.evaluation is not None else 0


def _of(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in known)


def _check_images(evaluation: Evaluation, samples: int, block: int) -> None:
    """Refuse too few images, or a reference without the vectors that a metric needs."""
    needs = [name for name in _of(evaluation.metrics, VECTORS) if name != "inception_score"]
    if needs and evaluation.data.features is None:
        raise UserError(
            f"metric {needs[0]}: reference {evaluation.data.name} holds moments alone, not feature vectors; build one "
            "from images with 'solverbench refs build NAME FOLDER'"
        )
    if _of(needs, ("kid", "kernel_data")) and block < 2:
        raise UserError(f"metric {needs[0]}: {samples} samples are too few, one a block; ask for --samples 20 or more")
    manifold = _of(needs, ("precision", "recall", "precision_data", "recall_data"))
    if manifold and samples - block <= NEIGHBOURS:
        raise UserError(f"metric {manifold[0]}: {samples} samples are too few; ask for --samples 20 or more")
