"""Teachers: the pre-trained model being sampled, seen as `denoise(x, sigma)`, with what its samples are judged by."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import registries
from solverbench import files, plugins
from solverbench.teachers.families import description as families
from solverbench import options as keywords
from solverbench import userdata as places
from solverbench.teachers.conditions import Condition
from solverbench.errors import PluginError, SpecError, UnknownNameError
from solverbench.metrics.frechet import Statistics
from solverbench.method.schedules import EDM, NoiseSchedule

OWN = ("frechet_data", "frechet_teacher")
"""Metrics of a teacher's own features, unless others are asked for."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments of a set of images that samples are compared with.

    Args:
        moments: of the extractor's features over the set.
        name: what the set is, for people.
        sha: names the set in keys: the sha256 of what the moments were made from, or of a file that holds them.
        features: [m, D] float64, of some or all of its images, for what moments can't tell; None without.
        note: what a reader must know about it; empty if nothing.
        crop: the rule by which its images were cut and scaled; empty if they weren't, or that isn't known.
        pixels: WIDTHxHEIGHT of its images; empty if that isn't known.
    """

    moments: Statistics
    name: str
    sha: str
    features: NDArray[np.float64] | None = None
    note: str = ""
    crop: str = ""
    pixels: str = ""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a teacher's samples are judged.

    Args:
        extractor: uint8 images [B, C, H, W] to features [B, D].
        extractor_id: names network and weights.
        quantiser: the rule from float to uint8.
        data: reference moments of the data.
        teacher: reference moments of the teacher's many-step samples; None if none are at hand.
        facts: measured beside them (the data's own floor, the teacher's own distance), for reports.
        metrics: what is measured of the features.
        rows: keep each block's feature vectors, not their sums alone.
        full: images of a replicate below which a distance is called biased.
        probabilities: features [B, D] to class probabilities [B, C], for the Inception score.
    """

    extractor: Callable[[Tensor], Tensor]
    extractor_id: str
    quantiser: str
    data: Reference
    teacher: Reference | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = OWN
    rows: bool = False
    full: int = 10_000
    probabilities: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network with its schedule.

    Args:
        denoise: (x [B, *shape], sigma 0-d float64 on the CPU) -> data prediction, x's shape; any sigma > 0. Condition
            and guidance are bound already. Must be differentiable for training.
        name: one word.
        shape: (C, H, W) of one image.
        schedule: where sampling starts and ends.
        identity: sha256 of weights and configuration: it names the network in keys and files.
        sampler: spec of the teacher sampler, whose many-step samples learned solvers are distilled from.
        sampler_nfe: its calls.
        evaluation: how samples are judged; None leaves only paired errors.
        move: returns this teacher on another device.
        double: the same network on float64 images, for exact solutions of its ODE; None if it only runs in float32.
        exact: measure against these solutions unless told not to, because they are cheap.
        bind: seeds [B] -> the denoiser of a batch of the images with these seeds, for a teacher whose condition
            depends on the seed; None if `denoise` serves any batch.
        decode: the final state [B, *shape] -> images on [-1, 1], differentiable; None if it is them already.
        passes: rows through the network per image and call: 2 with classifier-free guidance.
        condition: what images are conditioned on: part of every key beside `identity`; None if on nothing.
        arithmetic: of the network; see `Arithmetic.label`.
        spec: what `load_teacher` takes to give this teacher again; its name if empty.
        lacking: metrics that were asked for and can't be measured here, each with the reason.
    """

    denoise: Callable[[Tensor, Tensor], Tensor]
    name: str
    shape: tuple[int, int, int]
    schedule: NoiseSchedule = field(default_factory=EDM)
    identity: str = "unidentified"
    sampler: str = "heun"
    sampler_nfe: int = 64
    evaluation: Evaluation | None = None
    device: str = "cpu"
    move: Callable[[str], Teacher] | None = None
    double: Callable[[Tensor, Tensor], Tensor] | None = None
    exact: bool = False
    bind: Callable[[Sequence[int]], Callable[[Tensor, Tensor], Tensor]] | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    passes: int = 1
    condition: Condition | None = None
    arithmetic: str = "float32"
    spec: str = ""
    lacking: Mapping[str, str] = field(default_factory=dict)

    def denoiser(self, seeds: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the denoiser of a batch of the images with these seeds."""
        return self.denoise if self.bind is None else self.bind(seeds)

    def to(self, device: str) -> Teacher:
        """Return the teacher on `device`; a teacher without `move` only gets the label."""
        if device == self.device:
            return self
        if self.move is None:
            return dataclasses.replace(self, device=device)
        return dataclasses.replace(self.move(device), name=self.name, spec=self.spec)

    @property
    def base(self) -> str:
        """Its name without the options that it was asked for with."""
        return _parts(self.spec)[0] if self.spec else self.name

    @property
    def model(self) -> str:
        """Its name as one word, without the options: it stands for the network, and so for a data set and a size."""
        return self.name.removesuffix(_labelled("", _parts(self.spec)[1])) if self.spec else self.name

    @property
    def ode(self) -> str:
        """Names what a learned solver is trained for: the network, and the guidance that it follows."""
        told = self.condition
        if told is None or self.passes == 1:
            return self.identity
        return files.digest([self.identity, told.guidance, told.negative])

    def images(self, states: Tensor) -> Tensor:
        """Return the images [B, C, H, W] on [-1, 1] of final states [B, *shape]."""
        return states if self.decode is None else self.decode(states)


def load_teacher(text: str, device: str = "cpu") -> Teacher:
    """Return the teacher that `text` names.

    Args:
        text: a registered or imported name; or the path of a TOML description, or of a checkpoint's file or folder,
            whose family is recognised by looking. Each may be followed by options, as in `shapes:guidance=2` or
            `model.pkl:classes=fixed:3:dtype=fp16`.

    Raises:
        UnknownNameError: no such teacher.
        PluginError: a plugin offers it, but it can't be had.
        SpecError: an option that it doesn't have, or a value that isn't one.
        MissingError, RecordError: its files are not there, damaged, or of no known family.
    """
    head, given = _parts(text)
    spec = ":".join([head, *(f"{key}={value}" for key, value in sorted(given.items()))])
    if head in registries.teachers:
        load = plugins.get(registries.teachers, head)
        options = keywords.read(head, load, given)
        with plugins.blamed(registries.teachers, head):
            teacher = load(device, **options)
    elif (imported := places.teachers() / f"{head}.toml").is_file():
        teacher = families.load(imported, given, device)
    elif Path(head).exists() or re.search(r"[/\\.]", head):
        teacher = families.load(Path(head), given, device)
    else:
        raise _unknown(head)
    if not isinstance(teacher, Teacher):
        raise PluginError(f"teacher {head!r}: its loader returned {teacher!r}, not a Teacher; correct the plugin")
    return dataclasses.replace(teacher, name=_labelled(teacher.name, given), spec=spec)


def _parts(text: str) -> tuple[str, dict[str, str]]:
    """Head and options of a spec; a part without = goes on with what stands before it, as in C:\\x or fixed:3."""
    head, *parts = text.split(":")
    given: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and (not key or not value):
            raise SpecError(f"{text}: {part!r} isn't key=value; write {head}:key=value:key=value")
        if equals and key in given:
            raise SpecError(f"{text}: {key!r} is given twice; give it once")
        if equals:
            given[key] = value
        elif given:
            given[next(reversed(given))] += f":{part}"
        else:
            head += f":{part}"
    return head, given


def _labelled(name: str, given: Mapping[str, str]) -> str:
    """The name with its options, as one word: two conditions of one network are two teachers in a report."""
    told = [f"{key}={Path(text).stem if '/' in text else text}" for key, text in sorted(given.items()) if key != "name"]
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", "-".join([name, *told]))


def _unknown(name: str) -> UnknownNameError:
    try:
        registries.teachers.resolve(name)
    except registries.UnknownName as error:
        own = ", ".join(sorted(path.stem for path in places.teachers().glob("*.toml")))
        fetched = f" Its checkpoint: solverbench teachers fetch {name}." if name in registries.catalogue() else ""
        return UnknownNameError(f"{error}{f' Imported: {own}.' if own else ''}{fetched}")
    raise AssertionError(name)
