"""What images are measured by, as a user asks: metrics, extractor, reference and quantiser; a teacher judged so."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solverbench import registries
from solverbench.errors import MissingError, UserError
from solverbench.evaluation import references
from solverbench.metrics import extractors, plugin
from solverbench.metrics.evaluation import OWN, Evaluation
from solverbench.metrics.extractors import inception as fid
from solverbench.metrics.extractors.transformers import CLIP
from solverbench.metrics.lpips import LPIPS
from solverbench.metrics.quantise import QUANTISERS
from solverbench.metrics.vectors import NEIGHBOURS
from solverbench.teachers.teacher import Teacher

INCEPTION = ("fid", "fid_inf", "kid", "precision", "recall", "inception_score")
"""Of Inception features, by one of clean-fid's modes."""

OTHERS = {"fid_clip": "clip", "fdd": "dinov2"}
"""Fréchet distances of another network's features, to that network; never called FID."""

PUBLIC = (*INCEPTION, *OTHERS)
"""Of features that are comparable with papers, against a reference."""

FEATURES = (*OWN, "frechet_data_inf", "kernel_data", "precision_data", "recall_data")
"""The same of a teacher's own features, under names of their own."""

PAIRS = ("psnr_teacher", "lpips_teacher")
"""Against the teacher's own sample from the same noise, like rmse_teacher, which is always measured."""

PROMPTED = ("clip_score",)
"""Of an image and its own prompt."""

VECTORS = ("kid", "precision", "recall", "inception_score", "kernel_data", "precision_data", "recall_data")
"""Those that need each block's feature vectors; all but the Inception score need the reference's too."""

NEIGHBOURLY = ("precision", "recall", "precision_data", "recall_data")

MANIFOLD = 10_000
"""Images of a replicate that precision and recall are taken over, the first of each block."""

UNBIASED = ("kid", "kernel_data")
"""Of features, yet the same on average at any number of images."""

EXTRAPOLATED, SEVERAL = ("fid_inf", "frechet_data_inf"), 10
"""Distances at infinitely many images, and the images per feature that they take: docs/uncertainty.md."""

PROTOCOLS = {"smoke": (250, 1), "quick": (5_000, 1), "paper": (50_000, 1)}
"""Name to (images, replicates)."""

OF_DATA = ("data_floor", "teacher_distance")
"""Facts of an evaluation that are distances to its own data, and so to no other reference."""

FULL = 50_000
"""Images of a replicate below which an FID is called biased: the papers' number."""

BUILT_IN = (*PUBLIC, *FEATURES, *PAIRS, *PROMPTED, "rmse_teacher")
"""What can be asked for by name without a plugin."""

_SCORERS: dict[tuple[str, str], CLIP] = {}


@dataclass(frozen=True)
class MetricSelection:
    """What is measured, beside RMSE.

    Args:
        metrics: names; empty for what the teacher itself comes with.
        reference: name or file of real images' statistics; None for the teacher's own, or the one stored in its name.
        extractor: of Inception features, one of `fid.MODES`.
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
    ) -> MetricSelection:
        """Return what a user asked for.

        Raises:
            UserError: a name that isn't known, metrics of two sets of features, or an option that nothing would use.
        """
        listed = metrics.split(",") if isinstance(metrics, str) else list(metrics or ())
        names = tuple(dict.fromkeys(name.strip() for name in listed))
        known = (*BUILT_IN, *(name for name in registries.metrics if name not in registries.metrics.builtin))
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name.lower(), known, n=1)
                hint = f"did you mean {near[0]!r}? Known" if near else "known"
                raise UserError(f"metric {name!r}: not known; {hint} are {', '.join(known)}")
        theirs, ours = _of(names, PUBLIC), _of(names, FEATURES)
        sets = [found for known in (INCEPTION, *((name,) for name in OTHERS), FEATURES) if (found := _of(names, known))]
        if len(sets) > 1:
            raise UserError(
                f"metrics {', '.join(sets[0])} and {', '.join(sets[1])}: of two sets of features; run once for each, "
                "with the same --out"
            )
        if quantiser is not None and quantiser not in QUANTISERS:
            raise UserError(f"quantiser {quantiser!r}: not known; use {' or '.join(QUANTISERS)}")
        if extractor is not None and extractor not in fid.MODES and _of(names, INCEPTION):
            raise UserError(f"extractor {extractor!r}: not one of {', '.join(fid.MODES)}; papers use legacy_tensorflow")
        users = {"reference": (*theirs, *ours), "extractor": _of(names, INCEPTION)}
        for flag, value in (("reference", reference), ("extractor", extractor)):
            if value is not None and not users[flag]:
                raise UserError(f"--{flag} {value}: no metric asked for uses it; add --metrics fid, or leave it out")
        return cls(tuple(name for name in names if name != "rmse_teacher"), reference, extractor, quantiser)

    @property
    def pairs(self) -> tuple[str, ...]:
        """The metrics over pairs of images, beside RMSE."""
        return _of(self.metrics, PAIRS)

    @property
    def prompted(self) -> tuple[str, ...]:
        """The metrics of an image and its prompt."""
        return _of(self.metrics, PROMPTED)

    def scored(self, teacher: Teacher) -> tuple[str, ...]:
        """Return the metrics by plugins that are there."""
        return tuple(name for name in self.metrics if name not in BUILT_IN and name not in teacher.lacking)

    def scores(self, teacher: Teacher) -> dict[str, plugin.Metric]:
        """Return the metrics by plugins that are there, for images on the teacher's device."""
        return {name: plugin.load(name, teacher.device) for name in self.scored(teacher)}

    def key(self, teacher: Teacher) -> dict[str, Any]:
        """Return what it adds to a cell's key beside the evaluation; nothing by default."""
        pairs, found = [name for name in self.pairs if name not in teacher.lacking], dict[str, Any]()
        if pairs:
            found = {"pairs": pairs, **({"lpips": LPIPS.identity} if "lpips_teacher" in pairs else {})}
        if (scorer := self.scorer(teacher)) is not None:
            found["clip_score"] = {"network": scorer.identity, "quantiser": self.rule(teacher)}
        if scored := self.scored(teacher):
            rule = self.rule(teacher)
            found["scores"] = {name: {"metric": plugin.identity(name), "quantiser": rule} for name in scored}
        return found

    def rule(self, teacher: Teacher) -> str:
        """Return the quantiser of a judged teacher's images."""
        judged = teacher.evaluation
        return judged.quantiser if judged is not None else self.quantiser or "edm-round"

    def perceptual(self, teacher: Teacher) -> LPIPS | None:
        """Return the perceptual distance if it is asked for and there."""
        wanted = "lpips_teacher" in self.pairs and "lpips_teacher" not in teacher.lacking
        return LPIPS(teacher.device) if wanted else None

    def scorer(self, teacher: Teacher) -> CLIP | None:
        """Return what compares images with their prompts if that is asked for and there; one for all blocks."""
        if not self.prompted or "clip_score" in teacher.lacking:
            return None
        made = CLIP(teacher.device)
        return _SCORERS.setdefault((made.identity, made.device), made)

    def of_teacher(self, teacher: Teacher, samples: int, block: int, out: Path) -> Teacher:
        """Return `teacher`, judged as asked; what can't be measured for want of a file or package is in its `lacking`.

        Args:
            samples: images of a replicate.
            block: images of a seed block.
            out: the results folder, where references are looked for first.

        Raises:
            UserError, RecordError, FeatureError: it can't be judged so, said before any work.
            MissingError: the reference that was named isn't there.
        """
        if not self.metrics:
            judged = teacher.evaluation
            if judged is None or self.quantiser is None:
                return teacher
            return dataclasses.replace(teacher, evaluation=_requantised(judged, self.quantiser))
        theirs, ours = _of(self.metrics, PUBLIC), _of(self.metrics, FEATURES)
        lacking = dict([*self._unpaired(teacher), *self._unscored(teacher)])
        evaluation = None
        if theirs and (missing := self._missing(teacher, theirs, out)):
            lacking |= dict.fromkeys(theirs, missing)
        elif theirs:
            evaluation = self._public(teacher, theirs, samples, out)
        elif ours:
            evaluation = self._own(teacher, ours, out)
        if evaluation is not None:
            _check_images(evaluation, samples, block)
        return dataclasses.replace(teacher, evaluation=evaluation, lacking=lacking)

    def _unpaired(self, teacher: Teacher) -> Iterator[tuple[str, str]]:
        """Each metric of pairs and prompts that can't be measured, with the reason; their networks are loaded."""
        if "lpips_teacher" in self.pairs:
            try:
                LPIPS(teacher.device).network()
            except MissingError as error:
                yield "lpips_teacher", str(error)
        if self.prompted:
            if teacher.condition is None or not teacher.condition.prompts:
                raise UserError(f"metric clip_score: teacher {teacher.name!r} has no prompts; leave it out")
            try:
                CLIP(teacher.device).check_words()
            except MissingError as error:
                yield "clip_score", str(error)

    def _unscored(self, teacher: Teacher) -> Iterator[tuple[str, str]]:
        """Each metric by a plugin that lacks a file or a package, with the reason; the others are made ready.

        Raises:
            PluginError: one can't be had.
        """
        for name in self.scored(teacher):
            plugin.identity(name)
            try:
                plugin.load(name, teacher.device)
            except MissingError as error:
                yield name, str(error)

    def _missing(self, teacher: Teacher, metrics: tuple[str, ...], out: Path) -> str:
        """What isn't there that metrics of public features need; empty if all is.

        Raises:
            MissingError: the reference that was named isn't there.
        """
        if self.reference is not None:
            references.find(self.reference, out)
        found, identity = [], None
        try:
            identity = extractors.load(self.network(metrics), teacher.device).identity
        except MissingError as error:
            found.append(str(error))
        try:
            self.reference or references.named_for(teacher, out, identity)
        except MissingError as error:
            found.append(f"{error}; or name another one with --reference")
        return "; ".join(found)

    def network(self, metrics: Sequence[str]) -> str:
        """Return the name of the extractor of `metrics`, which are of one set of public features."""
        return OTHERS.get(metrics[0]) or self.extractor or "legacy_tensorflow"

    def _public(self, teacher: Teacher, metrics: tuple[str, ...], samples: int, out: Path) -> Evaluation:
        network = extractors.load(self.network(metrics), teacher.device)
        name = self.reference or references.named_for(teacher, out, network.identity)
        reference = references.load(name, out, network.identity)
        if reference.moments.mean.size != network.size:
            raise UserError(
                f"reference {reference.name}: of {reference.moments.mean.size} features, but {network.identity} gives "
                f"{network.size}; give a reference of that extractor"
            )
        height, width = teacher.shape[1:]
        if teacher.decode is None and reference.pixels not in ("", f"{width}x{height}"):
            note = f"reference {reference.name}: of images {reference.pixels}, {teacher.name}'s are {width}x{height}"
            reference = dataclasses.replace(reference, note="; ".join(filter(None, (reference.note, note))))
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
            probabilities=network.probabilities if isinstance(network, fid.Inception) else None,
        )

    def _own(self, teacher: Teacher, metrics: tuple[str, ...], out: Path) -> Evaluation:
        judged = teacher.evaluation
        if judged is None:
            raise UserError(
                f"metrics {', '.join(metrics)}: teacher {teacher.name!r} comes with no features of its own; "
                "ask for --metrics fid"
            )
        if self.reference is not None:
            data = references.load(self.reference, out, judged.extractor_id)
            facts = {name: fact for name, fact in judged.facts.items() if name not in OF_DATA}
            judged = dataclasses.replace(judged, data=data, facts=facts)
        judged = _requantised(judged, self.quantiser or judged.quantiser)
        return dataclasses.replace(judged, metrics=metrics, rows=bool(_of(metrics, VECTORS)))


def lacking(teachers: Sequence[Teacher]) -> list[str]:
    """Return a line on each metric that was asked for and can't be measured, like ones of several teachers once."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for teacher in teachers:
        for metric, why in teacher.lacking.items():
            metrics, names = found.setdefault(why, ([], []))
            metrics += [metric] if metric not in metrics else []
            names += [teacher.name] if teacher.name not in names else []
    return [f"no {', '.join(metrics)} of {', '.join(names)}: {why}" for why, (metrics, names) in found.items()]


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
    if metric in UNBIASED or metric not in (*PUBLIC, *FEATURES) or teacher.evaluation is None:
        return 0
    if metric in EXTRAPOLATED:
        return SEVERAL * teacher.evaluation.data.moments.mean.size
    return min(teacher.evaluation.full, MANIFOLD) if metric in NEIGHBOURLY else teacher.evaluation.full


def _requantised(judged: Evaluation, quantiser: str) -> Evaluation:
    """The evaluation by another quantiser, without what was measured by its own, which the teacher's samples keep."""
    if quantiser == judged.quantiser:
        return judged
    own = judged.teacher and dataclasses.replace(judged.teacher, name=f"{judged.teacher.name}, by {judged.quantiser}")
    return dataclasses.replace(judged, quantiser=quantiser, facts={}, teacher=own)


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
    manifold = _of(needs, NEIGHBOURLY)
    if manifold and samples - block <= NEIGHBOURS:
        raise UserError(f"metric {manifold[0]}: {samples} samples are too few; ask for --samples 20 or more")
