"""Import of learned solvers trained by their authors' own code."""

from __future__ import annotations

import hashlib
import io
import platform
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench._version import __version__
from solverbench.errors import GridError, RecordError, TrainingError
from solverbench.learned import trained_files
from solverbench.learned.discretisation import with_ends
from solverbench.learned.dyweight import DyWeight
from solverbench.learned.gs import Timed
from solverbench.learned.ld3 import LD3
from solverbench.learned.trained_files import Trained
from solverbench.method.grids import explicit
from solverbench.method.schedules import EDM
from solverbench.method.solver import LearnedSolver
from solverbench.method.spec import make
from solverbench.method.tracing import trace
from solverbench.registries import authors
from solverbench.teachers.families import edm_pickles
from solverbench.teachers.teacher import Teacher

GAS_LAYOUT = "a dict whose ema.shadow_params lists mu_logit [N-1], t_couple [N] and for i = 1..N: c_i [N], a_i [N]"
DYWEIGHT_LAYOUT = "weights [M, H], the newest output's first, and a scale [N] for each call"
LD3_LAYOUT = (
    "a dict whose best_t_steps [2(N+1)] are N+1 decreasing grid times, then the N+1 times that the network gets"
)

ENDS = 1e-4
"""Relative tolerance between the ends of LD3's times and the teacher's; LD3 stores them in float32, via lambda."""


def read(
    path: Path,
    teacher: Teacher,
    nfe: int,
    *,
    solver: str = "gas",
    t_eps: float | None = None,
    start: str | None = None,
    names: str | None = None,
) -> Trained:
    """Return the solver in a file of the GAS, LD3 or DyWeight repository, as `solver` selects.

    A file of GAS samples as in the authors' code, see `as_authors`.

    Raises:
        RecordError: see `as_authors`, `gas`, `ld3` and `dyweight`; also `t_eps`, `start` or `names` given for a file
            that needs none.
        SpecError, UnknownNameError: there is no such solver.
    """
    method = make(solver)
    if start is not None and not isinstance(method, Timed):
        raise RecordError(
            asked=path,
            wrong=f"start={start}, but files of {method.name} have no such choice",
            remedy="leave --start out",
        )
    if isinstance(method, DyWeight) and t_eps is None:
        return dyweight(path, teacher, nfe, solver=solver, names=names)
    if names is not None:
        raise RecordError(
            asked=path, wrong=f"tensors={names}, but its tensors have known names", remedy="leave --tensors out"
        )
    if isinstance(method, DyWeight):
        raise RecordError(
            asked=path, wrong=f"t_eps={t_eps:g}, but DyWeight has no such time", remedy="leave --t-eps out"
        )
    if isinstance(method, Timed):
        _check_usual(path, method)
        _held(path, nfe)  # a file that can't be used is refused before a missing time range
        return gas(path, teacher, nfe, solver=as_authors(path, method, teacher, t_eps, start).spec)
    if not isinstance(method, LD3):
        return gas(path, teacher, nfe, solver=solver)
    if t_eps is not None:
        raise RecordError(
            asked=path, wrong=f"t_eps={t_eps:g}, but files of LD3 contain the times", remedy="leave --t-eps out"
        )
    return ld3(path, teacher, nfe, solver=solver)


def as_authors(
    path: Path, method: Timed, teacher: Teacher, t_eps: float | None = None, start: str | None = None
) -> Timed:
    """Return `method` with the options that sample on `teacher` as the code of GAS's authors does.

    On an EDM network the end of the time range must be known. It is published for some teachers. Sampling starts at
    level 152.167, unless the network's own largest level is lower. Other schedules have their own ends.

    Args:
        path: the file, for messages.
        t_eps: end of the time range of its training; the published one of this teacher if None.
        start: model or free, see `Timed`; chosen by the schedule if None.

    Raises:
        RecordError: `t_eps` isn't known, or is given twice.
        SpecError: an option out of range.
    """
    schedule = teacher.schedule
    if None not in (t_eps, method.t_eps):
        raise RecordError(asked=path, wrong="t_eps is in the spec and in --t-eps", remedy="give it once")
    published = make(f"gs:{options}") if (options := authors("gas", teacher.model).get("options")) else None
    end = method.t_eps if t_eps is None else t_eps
    if end is None and isinstance(published, Timed) and isinstance(schedule, EDM):
        end = published.t_eps
    if end is None and isinstance(schedule, EDM):
        raise RecordError(
            asked=path,
            wrong=f"its times are fractions of the time range of its training, which isn't known for {teacher.name}",
            remedy="give its end as --t-eps; the authors train with 1e-3 on CIFAR-10, and with 1e-4 on FFHQ and AFHQv2",
        )
    limited = not isinstance(schedule, EDM) or schedule.key.get("sigma_max") == "network"
    usual = method.authors if method.authors != "none" else "model" if limited else "free"
    return replace(method, t_eps=end, authors=start or usual)


def gas(path: Path, teacher: Teacher, nfe: int, *, solver: str = "gas", t_eps: float | None = None) -> Trained:
    """Return the solver with the EMA parameters of a GAS repository checkpoint (`<iter>.pt`), for `teacher`.

    The file is unpickled by torch's restricted reader, which builds tensors and plain values and executes nothing.

    Args:
        nfe: number of calls; the file's shapes must match it.
        solver: "gas" or "gs", which the repository writes alike; "s4s_gas_compat" for use_theory_coef=false.
            Of its options, t_eps and authors may be given.
        t_eps: end of the time range used in training; the spec's, or the teacher's own end level, if None.

    Raises:
        RecordError: the file is missing, not such a checkpoint, for another number of calls, or gives no valid solver.
        SpecError: not gas or gs, or t_eps out of range.

    Source: arXiv:2510.17699, public code: the parameters' flat order, kept by the torch-ema package.
    """
    method = make(solver if t_eps is None else f"{solver}:t_eps={t_eps!r}")
    if not isinstance(method, Timed):
        raise RecordError(
            asked=path,
            wrong=f"holds a GAS or GS solver, not {method.name}",
            remedy="use --solver gas or --solver gs, or ld3 for a file of LD3",
        )
    _check_usual(path, method)
    content, checkpoint, parameters = _held(path, nfe)
    about = {
        "layout": "GAS repository, ema.shadow_params",
        "t_eps": method.t_eps,
        "authors": method.authors,
        "step": _number(checkpoint.get("step")),
        "ema_decay": _number(checkpoint["ema"].get("decay")),
        "ema_updates": _number(checkpoint["ema"].get("num_updates")),
    }
    remedy = "give the --t-eps of its training"
    return _trained(path, content, method.with_parameters(parameters), teacher, nfe, about, remedy)


def ld3(path: Path, teacher: Teacher, nfe: int, *, solver: str = "ld3") -> Trained:
    """Return the solver with exactly the times of an LD3 repository file (`best_v2.pt`), for `teacher`.

    The file holds times only; `solver` gives base solver, order and mode. The ends, rounded to float32 in the file, are
    replaced by the teacher's own. If a shift exceeds the default limit, the result is a solver with limited=false.

    Args:
        nfe: number of calls; the file's shape must match it.
        solver: ld3 with its options, as in "ld3:base=ipndm:order=2:mode=time".

    Raises:
        RecordError: the file is missing, not such a file, for another number of calls, or has times of another teacher.
        SpecError: not an ld3.

    Source: arXiv:2405.15506 (LD3), public code: falling times of the model's own schedule; for an EDM model they are
    noise levels.
    """
    method = make(solver)
    if not isinstance(method, LD3):
        raise RecordError(asked=path, wrong=f"holds an LD3 solver, not {method.name}", remedy="use --solver ld3")
    content = _read(path)
    times, told = _times(_unpickled(content, path, "the LD3 repository"), path)
    _check_calls(path, len(times) - 1, nfe)
    method.steps(nfe)
    schedule = teacher.schedule
    try:
        ends = method.discretisation.ends(schedule)
        grid = with_ends("its times as levels", explicit(schedule.sigma(times), schedule), ends, ENDS)
        if not torch.allclose(told[0], times[0], rtol=ENDS, atol=0.0):
            raise GridError(
                asked="its first call",
                wrong=f"gets time {float(told[0]):g} instead of {float(times[0]):g}",
                remedy="give a file with an unshifted first call",
            )
    except GridError as error:
        raise RecordError(
            asked=path,
            wrong=f"its times don't fit the levels of {teacher.name} ({error.finding('')})",
            remedy="name the teacher that it was trained for",
        ) from None
    shape, evaluated = method.discretisation, schedule.sigma(told)
    shifts = shape.places(evaluated, schedule) - shape.places(grid.sigmas, schedule)
    shifts[0] = shifts[-1] = 0
    equipped = method.with_parameters({"theta1": shape.logits(grid), "theta2": shifts})
    if not torch.allclose(equipped.told(equipped.grid(schedule, nfe))[1:], evaluated[1:-1], rtol=1e-11, atol=0.0):
        equipped = replace(equipped, limited=False, compat=False)
    about = {"layout": "LD3 repository, best_t_steps", "first": float(times[0]), "last": float(times[-1])}
    return _trained(path, content, equipped, teacher, nfe, about, "name the teacher that it was trained for")


def dyweight(path: Path, teacher: Teacher, nfe: int, *, solver: str = "dyweight", names: str | None = None) -> Trained:
    """Return the solver with the tensors of a DyWeight repository checkpoint, for `teacher`.

    These are pickles of objects with their source code. Only their tensors are read, and nothing in them is run. The
    names of the tensors and the order of a row's weights aren't published as text, so `names` gives the former, and the
    latter is taken to be that of the formula, the newest output first.

    Args:
        nfe: number of calls; the scales must be as many.
        solver: dyweight with its options; history and afs must be those of the training.
        names: names of weights and scales in the file, joined by a comma; without them, the error lists what is there.

    Raises:
        RecordError: the file can't be read, has no tensors of these names and shapes, or has the oldest output first.
        SpecError: not a dyweight.

    Source: arXiv:2603.11607.
    """
    method = make(solver)
    if not isinstance(method, DyWeight):
        raise RecordError(
            asked=path, wrong=f"holds a DyWeight solver, not {method.name}", remedy="use --solver dyweight"
        )
    content = _read(path)
    if zipfile.is_zipfile(path):
        unpickled = _unpickled(content, path, "the DyWeight repository")
        found = (
            {str(k): v for k, v in unpickled.items() if isinstance(v, Tensor)} if isinstance(unpickled, dict) else {}
        )
    else:
        found = edm_pickles.parameters(path)
    wanted = [name.strip() for name in (names or "").split(",")]
    if len(wanted) != 2 or not all(name in found for name in wanted):
        there = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(found.items())[:12]) or "none"
        raise RecordError(
            asked=path,
            wrong=f"its tensors are {there}" + (f", not {names}" if names else ""),
            remedy=f"name those of its {DYWEIGHT_LAYOUT}, as in --tensors weights,scales",
        )
    weights, scales = (found[name].detach().double() for name in wanted)
    if scales.ndim == 1:
        _check_calls(path, len(scales), nfe)
    steps = method.steps(nfe)
    if weights.shape != (steps, method.history) or scales.shape != (nfe,):
        raise RecordError(
            asked=path,
            wrong=f"weights {list(weights.shape)} and scales {list(scales.shape)}, where {method.spec} has "
            f"[{steps}, {method.history}] and [{nfe}]",
            remedy="give the history and afs of its training, as in --solver dyweight:history=3:afs=true",
        )
    if not (weights.isfinite().all() and scales.isfinite().all()):
        raise RecordError(asked=path, wrong="has a number that isn't finite", remedy="give another checkpoint")
    full = weights[method.history - 1 :].mean(0)
    if len(full) > 1 and full[0] < full[-1]:
        raise RecordError(
            asked=path,
            wrong="its last weights are the largest, so the oldest output comes first",
            remedy="reverse the columns of its weights and save them with torch.save",
        )
    parameters = {f"w{n}": weights[n, : n + 1] for n in range(steps)} | {"a": scales}
    about = {"layout": "DyWeight repository, weights and scales", "tensors": wanted}
    return _trained(path, content, method.with_parameters(parameters), teacher, nfe, about, "name its own teacher")


def keep(trained: Trained, source: Path, out: Path) -> Path:
    """Write an imported solver to the path where `zoo.find` looks in a results folder; return that path.

    Raises:
        RecordError: the file exists with another trained solver; it is not overwritten.
    """
    place = out / "trained" / trained.teacher / trained_files.file_name(trained.spec, trained.nfe)
    if place.exists() and trained_files.load(place).identity != trained.identity:
        raise RecordError(
            asked=source, wrong=f"{place} holds another trained solver", remedy="move it away, or choose another --out"
        )
    trained_files.save(trained, place)
    return place


def _trained(
    path: Path, content: bytes, solver: LearnedSolver, teacher: Teacher, nfe: int, about: dict[str, Any], remedy: str
) -> Trained:
    """Return the solver, traced for `teacher`, with the record of its origin."""
    try:
        tableau = trace(solver, solver.grid(teacher.schedule, solver.steps(nfe)))
    except (GridError, TrainingError, ValueError) as error:
        raise RecordError(
            asked=path, wrong=f"no solver on the levels of {teacher.name} ({error})", remedy=remedy
        ) from None
    record = {
        "imported": {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), **about},
        "runs": [],
        "seeds": {},
        "versions": {"solverbench": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    return Trained(solver.spec, nfe, teacher.name, teacher.ode, solver.trained, tableau, record)


def _check_usual(path: Path, method: Timed) -> None:
    """Raise RecordError if a solver has options that the GAS repository doesn't train with."""
    if replace(method, t_eps=None, authors="none") != make(method.name):
        raise RecordError(
            asked=path,
            wrong=f"{method.spec} isn't what the GAS repository trains",
            remedy="leave options other than t_eps and authors out",
        )


def _held(path: Path, nfe: int) -> tuple[bytes, Mapping[str, Any], dict[str, Tensor]]:
    """Return a GAS repository checkpoint's content, its dict, and the EMA parameters for `nfe` calls."""
    content = _read(path)
    checkpoint = _checkpoint(content, path)
    parameters = _parameters(checkpoint, path)
    _check_calls(path, len(parameters["t_couple"]), nfe)
    return content, checkpoint, parameters


def _check_calls(path: Path, found: int, nfe: int) -> None:
    if found != nfe:
        raise RecordError(
            asked=path, wrong=f"its shapes are for nfe={found}, not for nfe={nfe}", remedy=f"use --nfe {found}"
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RecordError(
            asked=path, wrong="there is no such file", remedy="give a file of the GAS, LD3 or DyWeight repository"
        ) from None
    except OSError as error:
        raise RecordError(
            asked=path, wrong=f"can't be read ({error.strerror})", remedy="give a readable file"
        ) from None


def _checkpoint(content: bytes, path: Path) -> Mapping[str, Any]:
    """Return the dict of a GAS repository checkpoint."""
    checkpoint = _unpickled(content, path, "the GAS repository")
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("ema"), dict):
        raise _foreign(path, _lacks(checkpoint, "ema"))
    return checkpoint


def _unpickled(content: bytes, path: Path, source: str) -> Any:
    """Return the file's content, restricted to tensors and plain values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file makes torch's reader raise nearly anything
        raise RecordError(
            asked=path,
            wrong=f"can't be read as tensors and plain values ({type(error).__name__}), and nothing else is unpickled",
            remedy=f"give a file of {source}",
        ) from None


def _times(found: Any, path: Path) -> tuple[Tensor, Tensor]:
    """Return LD3's grid times and told times, [N+1] each, float64."""

    def foreign(what: str) -> RecordError:
        return RecordError(asked=path, wrong=f"isn't a file of LD3, it {what}", remedy=f"give {LD3_LAYOUT}")

    times = found.get("best_t_steps") if isinstance(found, dict) else None
    if times is None:
        raise foreign(_lacks(found, "best_t_steps"))
    if not isinstance(times, Tensor) or not times.is_floating_point() or times.layout != torch.strided:
        raise foreign(f"has a best_t_steps that isn't a tensor of floating point numbers ({type(times).__name__})")
    if times.ndim != 1 or len(times) % 2 or len(times) < 6:
        raise foreign(f"has a best_t_steps of shape {list(times.shape)}")
    if not times.isfinite().all():
        raise RecordError(
            asked=path,
            wrong="best_t_steps has a number that isn't finite",
            remedy="give an earlier file of the training",
        )
    grid, told = times.detach().double().chunk(2)
    if not (grid.diff() < 0).all():
        raise foreign(f"has a best_t_steps whose first half, {'+'.join(f'{t:g}' for t in grid.tolist())}, doesn't fall")
    if not (times > 0).all():
        raise foreign(f"has a best_t_steps with the time {float(times.min()):g}, which isn't above 0")
    return grid, told


def _lacks(found: Any, key: str) -> str:
    """Return what is wrong with a file that has no `key`, for the error message."""
    if not isinstance(found, dict):
        return f"is a {type(found).__name__}"
    keys = ", ".join(sorted(map(str, found))[:8]) or "nothing"
    return f"has no {key}, but {keys}"


def _parameters(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the EMA parameters by name, float64."""
    shadow = checkpoint["ema"].get("shadow_params")
    if not isinstance(shadow, list | tuple) or not all(isinstance(part, Tensor) for part in shadow):
        raise _foreign(path, "has no list of tensors ema.shadow_params")
    if len(shadow) < 4 or len(shadow) % 2:
        raise _foreign(path, f"has {len(shadow)} tensors")
    n = len(shadow) // 2 - 1
    names = ["mu_logit", "t_couple", *(f"{kind}{i}" for i in range(1, n + 1) for kind in "ca")]
    shapes, wanted = [tuple(part.shape) for part in shadow], [(n - 1,), *[(n,)] * (2 * n + 1)]
    for name, shape, size in zip(names, shapes, wanted, strict=True):
        if shape != size:
            raise _foreign(path, f"has {name} of shape {list(shape)}, not {list(size)}, among {len(shadow)} tensors")
    if not all(part.is_floating_point() and part.layout == torch.strided for part in shadow):
        raise _foreign(path, "has parameters that aren't floating point tensors")
    parameters = {name: part.detach().double() for name, part in zip(names, shadow, strict=True)}
    for name, part in parameters.items():
        if not part.isfinite().all():
            raise RecordError(
                asked=path,
                wrong=f"{name} has a number that isn't finite",
                remedy="give an earlier checkpoint of the training",
            )
    return parameters


def _foreign(path: Path, what: str) -> RecordError:
    return RecordError(asked=path, wrong=f"isn't a GAS checkpoint, it {what}", remedy=f"give {GAS_LAYOUT}")


def _number(value: Any) -> int | float | None:
    """Return a checkpoint's value as a plain finite number, for the record; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return value if plain else None
