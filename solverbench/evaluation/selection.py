"""Selection of metrics, extractor, reference and quantiser, and its application to a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solverbench import files, registries
from solverbench.errors import MissingError, PluginError, UserError
from solverbench.evaluation import own_data, references
from solverbench.evaluation.own_data import Pending, Unbuilt
from solverbench.evaluation.references import Extractor
from solverbench.metrics import extractors, plugin, table
from solverbench.metrics.evaluation import OWN, UNSTORED, Evaluation, Reference
from solverbench.metrics.extractors import inception as fid
from solverbench.metrics.quantise import QUANTISERS
from solverbench.metrics.reduction import BLOCKS
from solverbench.metrics.table import MetricDefinition, Takes
from solverbench.teachers.teacher import Teacher
from solverbench.wording import suggest

SETS = tuple(dict.fromkeys(each.features for each in table.TABLE.values() if each.features))
"""Names of the feature sets; the metrics of a cell use at most one of them."""

PROTOCOLS = {"smoke": (250, 1), "quick": (5_000, 1), "paper": (50_000, 1)}
"""Protocol name to (images per replicate, replicates)."""

OF_DATA = ("data_floor", "teacher_distance")
"""Names of facts that are distances to the teacher's own data and don't hold for another reference."""

OWN_SAMPLES = 10_000
"""Largest number of the teacher's own samples that a run makes for `frechet_teacher`."""

FULL = 50_000
"""Images per replicate below which an FID is reported as biased: the papers' number."""


@dataclass(frozen=True)
class MetricSelection:
    """The metrics to measure besides RMSE, as requested.

    Args:
        metrics: metric names; empty for the teacher's own metrics.
        reference: name or file of real images' statistics, or the path of the images; None for the teacher's own, or
            those stored in its name.
        extractor: extractor of Inception features, one of `fid.MODES`, None for legacy_tensorflow; or another one, for
            the metrics of a teacher's own features, None for the teacher's.
        quantiser: rule from float to uint8; None for the teacher's, or edm-round.
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
        """Return the selection for a user's options.

        Raises:
            UserError: an unknown name, metrics of two feature sets, or an option that no metric uses.
        """
        listed = metrics.split(",") if isinstance(metrics, str) else list(metrics or ())
        names = tuple(dict.fromkeys(name.strip() for name in listed))
        known = (*table.ASKABLE, *(name for name in registries.metrics if name not in registries.metrics.builtin))
        for name in names:
            if name not in known:
                remedy = suggest(name, known, f"known are {', '.join(known)}")
                raise UserError(asked=f"metric {name!r}", wrong="not known", remedy=remedy)
        sets = [found for each in SETS if (found := table.of_features(names, each))]
        if len(sets) > 1:
            raise UserError(
                asked=f"metrics {', '.join(sets[0])} and {', '.join(sets[1])}",
                wrong="they need different features",
                remedy="run once for each, with the same --out",
            )
        if quantiser is not None and quantiser not in QUANTISERS:
            raise UserError(
                asked=f"quantiser {quantiser!r}", wrong="not known", remedy=f"use {' or '.join(QUANTISERS)}"
            )
        inception, own = table.of_features(names, table.INCEPTION), table.of_features(names, table.OWN)
        if extractor is not None:
            _check_extractor(extractor, inception)
        chosen = extractor is not None and extractor not in fid.MODES
        by_extractor = own or not names if chosen else inception
        used = {"reference": sets or (chosen and not names), "extractor": by_extractor}
        for flag, value in (("reference", reference), ("extractor", extractor)):
            if value is not None and not used[flag]:
                metric = "frechet_data" if chosen else "fid"
                raise UserError(
                    asked=f"--{flag} {value}",
                    wrong="no metric asked for uses it",
                    remedy=f"add --metrics {metric}, or leave it out",
                )
        return cls(tuple(name for name in names if name != table.ALWAYS), reference, extractor, quantiser)

    def of_teacher(self, teacher: Teacher, samples: int, block: int, out: Path) -> Measurement:
        """Return the teacher's measurement; metrics that can't be constructed are listed in `lacking`.

        Args:
            samples: images per replicate.
            block: images per seed block.
            out: results folder, searched first for references.

        Raises:
            UserError, RecordError, FeatureError: an impossible selection; raised before any work.
            MissingError: the requested reference doesn't exist.
        """
        evaluation = teacher.evaluation
        if not self.metrics and self.extractor is None:
            if evaluation is None:
                return Measurement(self, teacher.device)
            try:
                evaluation = self._complete(teacher, evaluation, out, samples)
            except MissingError as error:
                return Measurement(self, teacher.device, lacking={evaluation.metrics[0]: str(error)})
            return Measurement(self, teacher.device, evaluation)
        theirs, ours = table.public(self.metrics), table.of_features(self.metrics or OWN, table.OWN)
        unscored = dict(self._unscored(teacher))
        lacking = {name: str(error) for name, error in unscored.items()}
        broken = frozenset(name for name, error in unscored.items() if isinstance(error, PluginError))
        evaluation, pending = None, list[Pending]()
        if theirs and (missing := self._missing(teacher, theirs, out)):
            lacking |= dict.fromkeys(theirs, missing)
        elif theirs:
            try:
                evaluation = self._public(teacher, theirs, samples, out)
            except Unbuilt as error:
                pending += [error.pending]
                lacking |= dict.fromkeys(theirs, str(error))
        elif ours:
            try:
                evaluation = self._own(teacher, ours, samples, out)
            except Unbuilt as error:
                pending += [error.pending]
                lacking |= dict.fromkeys(ours, str(error))
            except MissingError as error:
                if self.reference is not None and not self._unloaded(teacher):
                    raise
                lacking |= dict.fromkeys(ours, str(error))
            lost = [name for name in ours if table.TABLE[name].to_teacher]
            if evaluation is not None and evaluation.teacher is None and lost:
                pending += [_own_samples(teacher, evaluation, samples)]
                lacking |= dict.fromkeys(lost, _without_samples(teacher, pending[-1]))
        if evaluation is not None:
            _check_images(evaluation, samples, block)
        return Measurement(self, teacher.device, evaluation, lacking, broken, tuple(pending))

    def _unscored(self, teacher: Teacher) -> Iterator[tuple[str, MissingError | PluginError]]:
        """Yield each metric that can't be constructed, with the reason; load the other networks.

        A network may lack a file or a package (MissingError), or a plugin's metric may fail (PluginError).

        Raises:
            UserError: a metric takes prompts and the teacher has none.
        """
        for name in self.metrics:
            try:
                each = plugin.find(name)
                if each.features:
                    continue
                if each.takes is Takes.PROMPT and (teacher.condition is None or not teacher.condition.prompts):
                    raise UserError(
                        asked=f"metric {each.name}",
                        wrong=f"teacher {teacher.name!r} has no prompts",
                        remedy="leave the metric out",
                    )
                if each.identity is not None:
                    each.identity(teacher.device)
                if each.network is not None:
                    each.network(teacher.device)
            except (MissingError, PluginError) as error:
                yield name, error

    def _missing(self, teacher: Teacher, metrics: tuple[str, ...], out: Path) -> str:
        """Return why metrics of public features can't be measured; empty if they can.

        Raises:
            MissingError: the requested reference doesn't exist.
        """
        if self.reference is not None and not own_data.of_images(self.reference, out):
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
        """Return the name of the extractor of `metrics`, which share one public feature set."""
        features = table.TABLE[metrics[0]].features
        return features if features != table.INCEPTION else self.extractor or "legacy_tensorflow"

    def _public(self, teacher: Teacher, metrics: tuple[str, ...], samples: int, out: Path) -> Evaluation:
        network = extractors.load(self.network(metrics), teacher.device)
        reference = self._data(teacher, Extractor(network, network.identity), out)
        if reference.moments.mean.size != network.size:
            raise UserError(
                asked=f"reference {reference.name}",
                wrong=f"has {reference.moments.mean.size} features, but {network.identity} gives {network.size}",
                remedy="give a reference of that extractor",
            )
        return Evaluation(
            extractor=network,
            extractor_id=network.identity,
            quantiser=self.quantiser or (teacher.evaluation.quantiser if teacher.evaluation else "edm-round"),
            data=_sized(reference, teacher),
            teacher=None,
            metrics=metrics,
            rows=_few(samples, network.size) or _vectors(metrics),
            full=FULL,
            probabilities=network.probabilities if isinstance(network, fid.Inception) else None,
        )

    def _own(self, teacher: Teacher, metrics: tuple[str, ...], samples: int, out: Path) -> Evaluation:
        """Return the evaluation of the features of the requested extractor, or of the teacher's own.

        Raises:
            UserError: there are none.
            MissingError: the extractor or its reference is missing.
        """
        if self.extractor is not None:
            made_by = references.extractor(self.extractor, teacher.device)
            judged = Evaluation(made_by.extract, made_by.identity, references.quantiser_of(teacher))
            judged = self._complete(teacher, judged, out, samples)
            few, data = _few(samples, judged.data.moments.mean.size), _sized(judged.data, teacher)
            return dataclasses.replace(judged, data=data, metrics=metrics, rows=few or _vectors(metrics))
        if teacher.evaluation is None:
            raise UserError(
                asked=f"metrics {', '.join(metrics)}",
                wrong=f"teacher {teacher.name!r} has no features of its own",
                remedy="give --extractor with features of your own, or ask for --metrics fid",
            )
        judged = self._complete(teacher, teacher.evaluation, out, samples)
        return dataclasses.replace(judged, metrics=metrics, rows=_vectors(metrics))

    def _data(self, teacher: Teacher, made_by: Extractor, out: Path) -> Reference:
        """Return the requested reference, or the one that is stored for the teacher.

        Raises:
            Unbuilt: it is of images whose features aren't known yet.
            MissingError: there is none.
            UserError, RecordError, FeatureError: it can't be used.
        """
        if self.reference is not None:
            return own_data.of(self.reference, made_by, out)
        return references.load(references.named_for(teacher, out, made_by.identity), out, made_by.identity)

    def _unloaded(self, teacher: Teacher) -> bool:
        """Return whether the requested extractor of own features lacks a file or a package."""
        try:
            if self.extractor is not None:
                references.extractor(self.extractor, teacher.device)
        except MissingError:
            return True
        return False

    def _complete(self, teacher: Teacher, judged: Evaluation, out: Path, samples: int) -> Evaluation:
        """Return the evaluation with the requested or stored references and the requested quantiser.

        Raises:
            MissingError: it comes without data and there is no reference for it.
        """
        if self.reference is not None:
            shape = teacher.shape if self.extractor is None and teacher.decode is None else None
            data = self._data(teacher, Extractor(judged.extractor, judged.extractor_id, shape), out)
            facts = {name: fact for name, fact in judged.facts.items() if name not in OF_DATA}
            judged = dataclasses.replace(judged, data=data, facts=facts)
        elif judged.data is UNSTORED:
            data = self._data(teacher, Extractor(judged.extractor, judged.extractor_id), out)
            judged = dataclasses.replace(judged, data=data)
        if judged.teacher is None:
            own = references.of_samples(teacher, out, judged.extractor_id, _own_count(samples))
            judged = dataclasses.replace(judged, teacher=own)
        return _requantised(judged, self.quantiser or judged.quantiser)


@dataclass(frozen=True, eq=False)
class Measurement:
    """The metrics of a teacher's images that are available here.

    Args:
        selection: the requested metrics.
        device: device of the images and the networks.
        evaluation: evaluation of features; None if no features are measured.
        lacking: requested metrics that can't be measured here, each with the reason.
        broken: those of them whose plugin failed.
        pending: references that a run builds first, so that fewer metrics are lacking.
    """

    selection: MetricSelection
    device: str
    evaluation: Evaluation | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    pending: tuple[Pending, ...] = ()

    @property
    def of_images(self) -> tuple[MetricDefinition, ...]:
        """The metrics that don't use features: built-in ones first, then those of plugins."""
        there = [name for name in self.selection.metrics if name not in self.lacking]
        builtin = [each for each in table.TABLE.values() if each.name in there and not each.features]
        return *builtin, *(plugin.find(name) for name in there if name not in table.TABLE)

    @property
    def plugged(self) -> tuple[str, ...]:
        """The names of the plugins' metrics."""
        return tuple(name for name in self.selection.metrics if name not in table.TABLE and name not in self.lacking)

    @property
    def extractor(self) -> str:
        """The name of the requested extractor if its features are measured; empty otherwise."""
        return (self.selection.extractor or "") if self.evaluation is not None else ""

    @property
    def quantiser(self) -> str:
        """The name of the rule from float to uint8."""
        return self.evaluation.quantiser if self.evaluation is not None else self.selection.quantiser or "edm-round"

    @property
    def key(self) -> dict[str, Any]:
        """Its part of a cell's key besides the evaluation; empty by default."""
        found = dict[str, Any]()
        for each in self.of_images:
            identity = each.identity(self.device) if each.identity else ""
            if each.takes is Takes.PAIR:
                paired = (*found.get("pairs", ()), each.name)
                found["pairs"] = [name for name in self.selection.metrics if name in paired]
                found |= {each.name.removesuffix("_teacher"): identity} if identity else {}
            elif each.takes is Takes.PROMPT and each.builtin:
                found[each.name] = {"network": identity, "quantiser": self.quantiser}
            elif each.takes in (Takes.IMAGE, Takes.PROMPT):
                score = {"metric": identity, "quantiser": self.quantiser}
                found["scores"] = {**found.get("scores", {}), each.name: score}
        return found

    def full(self, metric: str) -> int:
        """Return the images per replicate below which `metric` is reported as biased; 0 if it never is."""
        if metric not in table.TABLE or not table.TABLE[metric].features or self.evaluation is None:
            return 0
        return table.TABLE[metric].biased_below(self.evaluation)


def lacking(measurements: Mapping[str, Measurement]) -> list[str]:
    """Return lines on the requested metrics that can't be measured; equal reasons share one line.

    Args:
        measurements: teacher name to measurement.
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    for teacher, measurement in measurements.items():
        for metric, why in measurement.lacking.items():
            metrics, names = found.setdefault(why, ([], []))
            metrics += [metric] if metric not in metrics else []
            names += [teacher] if teacher not in names else []
    return [f"no {', '.join(metrics)} of {', '.join(names)}: {why}" for why, (metrics, names) in found.items()]


def protocol(name: str | None, samples: int | None, replicates: int | None, default: int) -> tuple[int, int | None]:
    """Return images per replicate and replicates of the protocol `name`; the user's numbers take precedence.

    Args:
        default: images per replicate without a protocol; the replicates are then returned as given.

    Raises:
        UserError: an unknown protocol.
    """
    if name is None:
        return default if samples is None else samples, replicates
    if name not in PROTOCOLS:
        raise UserError(asked=f"protocol {name!r}", wrong="not known", remedy=f"use {', '.join(PROTOCOLS)}")
    images, sets = PROTOCOLS[name]
    return images if samples is None else samples, sets if replicates is None else replicates


def _requantised(judged: Evaluation, quantiser: str) -> Evaluation:
    """Return the evaluation with another quantiser, without facts; the teacher's samples keep the old quantiser."""
    if quantiser == judged.quantiser:
        return judged
    own = judged.teacher and dataclasses.replace(judged.teacher, name=f"{judged.teacher.name}, by {judged.quantiser}")
    return dataclasses.replace(judged, quantiser=quantiser, facts={}, teacher=own)


def _own_count(samples: int) -> int:
    """Return the number of the teacher's own samples: twice a replicate's images, so that a floor has as many."""
    return min(2 * samples, OWN_SAMPLES)


def _own_samples(teacher: Teacher, judged: Evaluation, samples: int) -> Pending:
    """Return the reference of the teacher's own samples that a run makes."""
    count = _own_count(samples)
    about = [references.of_sampler(teacher), judged.extractor_id, count]
    name = f"{own_data.slug(teacher.model)}-samples-{files.digest(about)[:10]}"
    return Pending(name, Extractor(judged.extractor, judged.extractor_id), None, count)


def _without_samples(teacher: Teacher, pending: Pending) -> str:
    """Return why there is no distance to the teacher's own samples yet."""
    return (
        f"no reference of {teacher.name}'s own samples by {pending.made_by.identity} yet; a run makes one of "
        f"{pending.count} samples and keeps it"
    )


def _sized(reference: Reference, teacher: Teacher) -> Reference:
    """Return a reference with a note if its images are of another size than the teacher's."""
    height, width = teacher.shape[1:]
    if teacher.decode is not None or reference.pixels in ("", f"{width}x{height}"):
        return reference
    note = f"reference {reference.name}: its images are {reference.pixels}, but {teacher.name}'s are {width}x{height}"
    return dataclasses.replace(reference, note="; ".join(filter(None, (reference.note, note))))


def _few(samples: int, size: int) -> bool:
    """Return whether there are no more images than features if a block is left out."""
    return samples * (BLOCKS - 1) <= size * BLOCKS


def _check_extractor(name: str, inception: Sequence[str]) -> None:
    """Raise UserError for an unknown extractor, or one that isn't Inception for metrics of Inception."""
    if name not in fid.MODES and inception:
        raise UserError(
            asked=f"extractor {name!r}",
            wrong=f"not one of {', '.join(fid.MODES)}, whose features {', '.join(inception)} needs",
            remedy="use legacy_tensorflow, as papers do, or ask for metrics such as frechet_data of other features",
        )
    if name not in registries.extractors:
        known = ", ".join(registries.extractors)
        raise UserError(
            asked=f"extractor {name!r}",
            wrong="not known",
            remedy=suggest(name, registries.extractors, f"known are {known}; give --plugin for one of your own"),
        )


def _vectors(metrics: Sequence[str]) -> bool:
    """Return whether one of these metrics needs the feature vectors of every block."""
    return bool(table.of(metrics, lambda each: each.vectors))


def _check_images(evaluation: Evaluation, samples: int, block: int) -> None:
    """Raise UserError for too few images, or a reference without the vectors that a metric needs."""
    for each in (table.TABLE[name] for name in evaluation.metrics):
        if each.data_vectors and evaluation.data.features is None:
            raise UserError(
                asked=f"metric {each.name}",
                wrong=f"reference {evaluation.data.name} holds only moments, no feature vectors",
                remedy="build one from images with 'solverbench refs build NAME FOLDER'",
            )
        if few := each.too_few(samples, block):
            raise UserError(asked=f"metric {each.name}", wrong=few, remedy="ask for --samples 20 or more")
