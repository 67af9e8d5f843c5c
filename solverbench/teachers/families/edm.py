"""The family `edm`: networks from pickles of EDM's code, in the EDM or the VP frame."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from solverbench.errors import RecordError, SpecError, UserError
from solverbench.files import digest
from solverbench.method.schedules import EDM, NoiseSchedule, VPLinear
from solverbench.teachers.adaptors import fingerprint
from solverbench.teachers.conditions import Condition, Guided, passes
from solverbench.teachers.families import edm_pickles
from solverbench.teachers.families.description import Description
from solverbench.teachers.families.edm_networks import FULL_PRECISION, Preconditioned
from solverbench.teachers.teacher import SAMPLER_NFE, Teacher

SAMPLER = "unipc:order=3:grid=logsnr"
"""Teacher sampler, with `SAMPLER_NFE` calls; see docs/uncertainty.md. EDM's own is heun:end=zero, 35 or 79 calls."""

ROUNDED_SAMPLER = "heun:end=zero", 79
"""Teacher sampler of a network that knows only some levels, and its calls; more steps would repeat levels."""

ENDS = (0.002, 80.0)
"""Levels where EDM's sampler ends and starts, clipped to the network's range. Source: arXiv:2206.00364, table 1."""


@dataclass(frozen=True)
class Settings:
    """The family's own options.

    Args:
        frame: `edm`, or `vp`: the same network as a variance-preserving one with the same ends. Its start is
            sqrt(1 + sigma_max^2) times unit noise and its time grids are its own; the images differ only by rounding.
        t_eps: last time in the VP frame.
    """

    frame: str = "edm"
    t_eps: float = 1e-3


def recognises(path: Path) -> bool:
    """Return whether `path` is a pickle, or a network converted from one."""
    if not path.is_file():
        return False
    return path.suffix in (".pkl", ".pickle") or (path.suffix == ".safetensors" and edm_pickles.written(path))


def load(description: Description, device: str) -> Teacher:
    """Return the teacher.

    Raises:
        RecordError: the file contains anything but data, is damaged, or is not an EDM network.
        UserError: options that this network does not support.
    """
    settings = description.settings(Settings)
    stored = edm_pickles.read(description.checkpoint)
    network = _built(description.checkpoint, stored)
    identity = digest(
        {"family": "edm", "weights": fingerprint(stored.tensors), "class": stored.class_name,
         "kwargs": dict(stored.init_kwargs)}
    )  # fmt: skip
    condition = description.condition(count=network.classes, absent=bool(network.classes) and network.droppable)
    schedule = _schedule(description, settings, network)
    denoise = description.arithmetic.prepare(network, device, float32=FULL_PRECISION)
    double = Double(network) if condition is None and description.dtype == "fp32" else None
    sampler, nfe = ROUNDED_SAMPLER if network.levels else (SAMPLER, SAMPLER_NFE)
    return Teacher(
        denoise=denoise if condition is None else Labelled(denoise, network.classes),
        name=description.name,
        shape=network.shape,
        schedule=schedule,
        identity=identity,
        sampler=description.sampler or sampler,
        sampler_nfe=description.sampler_nfe or nfe,
        device=device,
        move=lambda device: load(description, device),
        double=double,
        bind=None if condition is None else Bound(denoise, condition, network, device),
        passes=1 if condition is None else passes(condition.guidance, network.droppable),
        condition=condition,
        arithmetic=description.arithmetic.label,
    )


class Labelled:
    """A class-conditional network without a class, which upstream encodes as a row of zeros."""

    def __init__(self, network: Preconditioned, classes: int) -> None:
        self.network, self.classes = network, classes

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        found: Tensor = self.network(x, sigma, torch.zeros(1, self.classes, device=x.device))
        return found


class Bound:
    """The map from seeds to the denoiser of their images, each with its one-hot class, with guidance if requested."""

    def __init__(self, network: Preconditioned, condition: Condition, plain: Preconditioned, device: str) -> None:
        self.network, self.condition, self.device = network, condition, device
        self.shape, self.classes, self.droppable = plain.shape, plain.classes, plain.droppable

    def __call__(self, seeds: Sequence[int]) -> Guided:
        labels = torch.tensor(self.condition.labels(seeds, self.shape))
        given = torch.nn.functional.one_hot(labels, self.classes).float().to(self.device)
        absent = (torch.zeros_like(given),) if self.droppable else None
        return Guided(self._predict, (given,), absent, self.condition.guidance)

    def _predict(self, x: Tensor, sigma: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        found: Tensor = self.network(x, sigma, told[0])
        return found


class Double:
    """The network in float64, for float64 images; created on first use, because few runs need it."""

    def __init__(self, network: Preconditioned) -> None:
        self.network = network

    @cached_property
    def double(self) -> Preconditioned:
        """The network in float64, with the same weights."""
        return copy.deepcopy(self.network).double()

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        found: Tensor = self.double(x, sigma)
        return found


def _built(path: Path, stored: edm_pickles.Network) -> Preconditioned:
    """Return the network with its weights; their names and shapes are checked before memory is allocated."""
    try:
        with torch.device("meta"):
            network = Preconditioned(stored.class_name, stored.init_kwargs)
    except Exception as error:  # a foreign file's arguments can make a constructor raise anything
        raise RecordError(
            asked=path,
            wrong=f"isn't an EDM network ({stored.class_name}: {error})",
            remedy="give another file, or FILE:family=NAME",
        ) from None
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.tensors.items()}
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    wrong = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    if missing or extra:
        what = "lacks" if missing else "has unknown"
        names = missing or extra
        raise RecordError(
            asked=path,
            wrong=f"{what} {len(names)} tensors of its {stored.class_name}, such as {names[0]}",
            remedy=_WHOLE,
        )
    if wrong:
        name = wrong[0]
        raise RecordError(
            asked=path,
            wrong=f"{name} has shape {list(found[name])}, but its arguments say {list(wanted[name])}",
            remedy=_WHOLE,
        )
    tensors = {name: tensor.float() for name, tensor in stored.tensors.items()}
    network.load_state_dict(tensors, assign=True)
    return network


_WHOLE = "give the complete file, as it was downloaded"


def _schedule(description: Description, settings: Settings, network: Preconditioned) -> NoiseSchedule:
    low, high = network.range
    end = description.sigma_min or max(ENDS[0], low)
    start = description.sigma_max or min(ENDS[1], high)
    if not low <= end < start <= high or not math.isfinite(start):
        raise UserError(
            asked=f"{description.name}:sigma_min={end:g},sigma_max={start:g}",
            wrong=f"the network covers {low:g} to {high:g}",
            remedy="give levels within that range, with sigma_min below sigma_max",
        )
    asked = {"sigma_min": "network" if end == low else end, "sigma_max": "network" if start == high else start}
    if network.levels:  # as upstream's sampler does
        end, start = (min(network.levels, key=lambda level: abs(level - wanted)) for wanted in (end, start))
    if settings.frame == "edm":
        return EDM(end, start, network.levels).asked_by(frame="edm", **asked)
    if settings.frame != "vp":
        raise SpecError(
            asked=f"{description.name}:frame={settings.frame}", wrong="not a known frame", remedy="use edm or vp"
        )
    if not 0 < settings.t_eps < 1:
        raise SpecError(
            asked=f"{description.name}:t_eps={settings.t_eps:g}",
            wrong="time goes from 1 down to t_eps",
            remedy="use a number between 0 and 1, such as 1e-3",
        )
    return VPLinear.refit(end, start, settings.t_eps).asked_by(frame="vp", t_eps=settings.t_eps, **asked)
