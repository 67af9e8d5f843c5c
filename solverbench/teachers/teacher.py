"""Teachers: the pre-trained model being sampled, seen as `denoise(x, sigma)`, with what its samples are judged by."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from solverbench import files
from solverbench.errors import SpecError
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.metrics.evaluation import Evaluation
from solverbench.teachers.conditions import Condition

FeatureNetwork = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] on [-1, 1] -> feature vectors [B, D], differentiable in the images."""


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
        features: networks by name, each as a function of a device that loads it there: "loss" is what solvers may be
            trained on, "metric" is what measures them. Training code is given a teacher without the latter, unless a
            recipe says allow_metric_loss.
        images_of: a range of seeds -> real images [B, C, H, W] on [-1, 1], on the CPU, each a function of its seed
            alone; None if there are none to draw.
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
    features: Mapping[str, Callable[[str], FeatureNetwork]] = field(default_factory=dict)
    images_of: Callable[[range], Tensor] | None = None

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

    def without_metric(self) -> Teacher:
        """Return the teacher without the network that measures: all that training code is given."""
        trainable = {name: load for name, load in self.features.items() if name != "metric"}
        return dataclasses.replace(self, features=trainable)

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


def condition(teacher: Teacher) -> str:
    """Return which class or prompt an image gets, for people."""
    return str(teacher.condition or ("by seed" if teacher.bind else "none"))
