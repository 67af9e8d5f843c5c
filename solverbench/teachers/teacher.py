"""Teachers: the pre-trained model being sampled, as `denoise(x, sigma)`, and how its samples are judged."""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from solverbench import files
from solverbench.errors import SpecError
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.metrics.evaluation import Evaluation
from solverbench.teachers.conditions import Condition
from solverbench.teachers.convergence import Convergence
from solverbench.wording import ends

SAMPLER, SAMPLER_NFE = "unipc:order=3:grid=time_quadratic", 100
"""Default teacher sampler and its calls: within 4e-4 RMSE of the exact solution on every kind of schedule here; see
docs/uncertainty.md."""

FeatureNetwork = Callable[[Tensor], Tensor]
"""Images [B, C, H, W] on [-1, 1] -> feature vectors [B, D], differentiable in the images."""


@dataclass(frozen=True)
class Pipeline:
    """The pipeline of diffusers that makes a teacher's images by its own call.

    Args:
        folder: its folder.
        call: arguments of the call in addition to prompt, class, noise and number of steps: guidance, sizes and so on.
            An image is given as the path of its file.
        state: shape of one image's `latents`, whose numbers are in the order of the teacher's noise; None if the call
            takes none, or has them in another order.
        variant: variant of the weight files; empty for the base files.
    """

    folder: Path
    call: Mapping[str, Any] = field(default_factory=dict)
    state: tuple[int, ...] | None = None
    variant: str = ""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network with its schedule.

    Args:
        denoise: (x [B, *shape], sigma 0-d float64 on the CPU) -> data prediction of x's shape, for any sigma > 0.
            Condition and guidance are already bound. Must be differentiable for training.
        name: name, one word.
        shape: (C, H, W) of one image.
        schedule: noise schedule, which sets where sampling starts and ends.
        identity: sha256 of weights and configuration; it names the network in keys and files.
        sampler: spec of the teacher sampler; learned solvers are distilled from its many-step samples.
        sampler_nfe: number of calls of the teacher sampler.
        sampler_error: the sampler's measured error, if it comes with the teacher; a run measures it if None, or if it
            is about another sampler.
        evaluation: how samples are judged unless other metrics are requested; only paired errors if None.
        move: function that returns this teacher on another device.
        double: the same network on float64 images, for exact solutions of its ODE; None if it only runs in float32.
        exact: whether to measure against the exact solutions by default, because they are cheap.
        bind: seeds [B] -> denoiser of a batch of the images with these seeds, for a teacher whose condition depends on
            the seed; None if `denoise` serves any batch.
        decode: final state [B, *shape] -> images on [-1, 1], differentiable; None if the state is the images.
        passes: rows through the network per image and call: 2 with classifier-free guidance.
        condition: condition of the images, part of every key in addition to `identity`; None if unconditional.
        arithmetic: arithmetic of the network; see `Arithmetic.label`.
        spec: text with which `load_teacher` returns this teacher again; its name if empty.
        notes: what a user should know about how it was read, one sentence each; loading says them.
        features: feature networks by name, each a function that loads it on a device. Solvers may be trained on "loss";
            "metric" measures them, and training code gets none of it unless a recipe sets allow_metric_loss.
        images_of: a range of seeds -> real images [B, C, H, W] on [-1, 1], on the CPU, each a function of its seed
            alone; None if the teacher has none.
        pipeline: the pipeline of diffusers that it was read from; None if it wasn't.
        short: what it is called where a reader sees it, if not by its name; see `shortened`.
    """

    denoise: Callable[[Tensor, Tensor], Tensor]
    name: str
    shape: tuple[int, int, int]
    schedule: NoiseSchedule = field(default_factory=EDM)
    identity: str = "unidentified"
    sampler: str = SAMPLER
    sampler_nfe: int = SAMPLER_NFE
    sampler_error: Convergence | None = None
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
    notes: tuple[str, ...] = ()
    features: Mapping[str, Callable[[str], FeatureNetwork]] = field(default_factory=dict)
    images_of: Callable[[range], Tensor] | None = None
    pipeline: Pipeline | None = None
    short: str = ""

    def __repr__(self) -> str:
        """Return the facts that name it, on one line."""
        return f"Teacher({', '.join(f'{name}={value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        """Return the same facts as an HTML table, for a notebook."""
        rows = (f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in self._facts().items())
        return f"<table>{''.join(rows)}</table>"

    def _facts(self) -> dict[str, object]:
        found: dict[str, object] = {
            "name": self.name,
            "shape": "x".join(map(str, self.shape)),
            "schedule": self.schedule,
            "sampler": f"{self.sampler}, {self.sampler_nfe} calls",
            "condition": condition(self),
            "arithmetic": self.arithmetic,
            "device": self.device,
            "identity": self.identity[:16],
        }
        return found | ({"latent": "final states are decoded"} if self.decode is not None else {})

    def denoiser(self, seeds: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the denoiser of a batch of the images with these seeds."""
        return self.denoise if self.bind is None else self.bind(seeds)

    def to(self, device: str) -> Teacher:
        """Return the teacher on `device`; without `move`, only the label changes."""
        if device == self.device:
            return self
        if self.move is None:
            return dataclasses.replace(self, device=device)
        return dataclasses.replace(self.move(device), name=self.name, spec=self.spec, short=self.short)

    def without_metric(self) -> Teacher:
        """Return the teacher without the network that measures: all that training code is given."""
        trainable = {name: load for name, load in self.features.items() if name != "metric"}
        return dataclasses.replace(self, features=trainable)

    @property
    def shown(self) -> str:
        """What it is called in tables, figures and lines; its name, which keys and files have, may be longer."""
        return self.short or self.name

    @property
    def base(self) -> str:
        """The head of its spec, without options."""
        return _parts(self.spec)[0] if self.spec else self.name

    @property
    def model(self) -> str:
        """Its name as one word, without options; it identifies the network, and so the data set and image size."""
        return self.name.removesuffix(_labelled("", _parts(self.spec)[1])) if self.spec else self.name

    @property
    def options(self) -> Mapping[str, str]:
        """The options of its spec, as text."""
        return _parts(self.spec)[1] if self.spec else {}

    def without(self, names: Iterable[str]) -> str:
        """Return its name without some options of its spec."""
        left = {key: text for key, text in self.options.items() if key not in set(names)}
        return _labelled(self.model, left)

    @property
    def ode(self) -> str:
        """The identity of the ODE that a learned solver is trained for: the network and its guidance."""
        told = self.condition
        if told is None or self.passes == 1:
            return self.identity
        rescaled = [told.rescale] if told.rescale else []
        own = [told.key["negatives"]] if told.negatives else []
        return files.digest([self.identity, told.guidance, told.negative, *rescaled, *own])

    def images(self, states: Tensor) -> Tensor:
        """Return the images [B, C, H, W] on [-1, 1] of final states [B, *shape]."""
        return states if self.decode is None else self.decode(states)


def _parts(text: str) -> tuple[str, dict[str, str]]:
    """Return the head and options of a spec; a part without = continues the previous one, as in C:\\x or fixed:3."""
    head, *parts = text.split(":")
    given: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and (not key or not value):
            raise SpecError(asked=text, wrong=f"{part!r} isn't key=value", remedy=f"write {head}:key=value:key=value")
        if equals and key in given:
            raise SpecError(asked=text, wrong=f"{key!r} is given twice", remedy="give it once")
        if equals:
            given[key] = value
        elif given:
            given[next(reversed(given))] += f":{part}"
        else:
            head += f":{part}"
    return head, given


def _labelled(name: str, given: Mapping[str, str]) -> str:
    """Return the name with its options as one word: two conditions of one network are two teachers in a report."""
    told = [f"{key}={Path(text).stem if '/' in text else text}" for key, text in sorted(given.items()) if key != "name"]
    return re.sub(r"[^A-Za-z0-9._=+-]+", "-", "-".join([name, *told]))


SHOWN = 40
"""Largest number of characters of a name that is shown as it is."""


def shortened(teachers: Sequence[Teacher]) -> list[Teacher]:
    """Return the teachers of a run with the names that a reader sees: see `Teacher.shown`.

    A teacher with the option `name` is called that. Any other one with a long name loses the options that all
    teachers of this network share, and then the middle of its name. The whole name is shown where two would be alike.
    """

    def given(each: Teacher) -> str:
        if "name" not in each.options and len(each.name) <= SHOWN:
            return each.name
        alike = [other.options for other in teachers if other.model == each.model]
        shared = {key for key in each.options if len({own.get(key) for own in alike}) == 1}
        name = each.without(shared)
        return name if "name" in each.options else ends(name, SHOWN)

    names = [given(each) for each in teachers]
    return [
        _called(each, each.name if names.count(name) > 1 else name) for each, name in zip(teachers, names, strict=True)
    ]


def _called(teacher: Teacher, name: str) -> Teacher:
    return teacher if teacher.shown == name else dataclasses.replace(teacher, short=name)


def expanded(text: str) -> list[str]:
    """Return the specs of a comma-separated list of teachers, each `a|b` expanded; see `alternatives`."""
    return [spec for item in text.split(",") for spec in alternatives(item.strip())]


def alternatives(text: str) -> list[str]:
    """Return the specs of one with alternatives: `shapes:guidance=1|2` are `shapes:guidance=1` and `shapes:guidance=2`.

    Raises:
        SpecError: an option isn't key=value, or is given twice.
    """
    if "|" not in text:
        return [text]
    head, given = _parts(text)
    parts = [[f"{key}={value}" for value in values.split("|")] for key, values in given.items()]
    for part in itertools.chain(*parts):
        if part.endswith("="):
            raise SpecError(asked=text, wrong=f"{part!r} has no value", remedy="leave the empty alternative out")
    return [":".join([head, *choice]) for choice in itertools.product(*parts)]


def condition(teacher: Teacher) -> str:
    """Return which class or prompt an image gets, as human-readable text."""
    return str(teacher.condition or ("by seed" if teacher.bind else "none"))
