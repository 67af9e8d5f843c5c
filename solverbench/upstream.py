"""Learned solvers trained by their authors' own code, read as trained solvers of ours."""

from __future__ import annotations

import hashlib
import io
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solverbench import __version__, zoo
from solverbench.errors import GridError, RecordError, TrainingError
from solverbench.gs import Generalized
from solverbench.spec import make
from solverbench.teachers import Teacher
from solverbench.tracing import trace
from solverbench.zoo import Trained

LAYOUT = "a dict whose ema.shadow_params lists mu_logit [N-1], t_couple [N] and for i = 1..N: c_i [N], a_i [N]"


def gas(path: Path, teacher: Teacher, nfe: int, *, solver: str = "gas", t_eps: float | None = None) -> Trained:
    """Return the solver in a checkpoint of the GAS repository (`<iter>.pt`), for `teacher`: its EMA parameters.

    The file is unpickled by torch's restricted reader, which builds tensors and plain values and runs nothing.

    Args:
        nfe: calls, which the shapes must have.
        solver: "gas" or "gs"; the repository writes both alike.
        t_eps: end of the time range it was trained with; the teacher's own end level if None.

    Raises:
        RecordError: not there, not such a checkpoint, for another number of calls, or of numbers that make no solver.
        SpecError: not gas or gs, or t_eps out of range.

    Source: arXiv:2510.17699, public code: the parameters' flat order, kept by the torch-ema package.
    """
    method = make(solver if t_eps is None else f"{solver}:t_eps={t_eps!r}")
    if not isinstance(method, Generalized):
        raise RecordError(f"{path}: holds a gas or gs, not a {method.name}; use --solver gas or --solver gs")
    content = _read(path)
    checkpoint = _unpickled(content, path)
    parameters = _parameters(checkpoint, path)
    found = len(parameters["t_couple"])
    if found != nfe:
        raise RecordError(f"{path}: its shapes are those of nfe={found}, not of nfe={nfe}; use --nfe {found}")
    equipped = method.with_parameters(parameters)
    try:
        tableau = trace(equipped, equipped.grid(teacher.schedule, nfe))
    except (GridError, TrainingError, ValueError) as error:
        raise RecordError(
            f"{path}: no solver on the levels of {teacher.name} ({error}); give the --t-eps of its training"
        ) from None
    record = {
        "imported": {
            "file": path.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "layout": "GAS repository, ema.shadow_params",
            "t_eps": t_eps,
            "step": _number(checkpoint.get("step")),
            "ema_decay": _number(checkpoint["ema"].get("decay")),
            "ema_updates": _number(checkpoint["ema"].get("num_updates")),
        },
        "runs": [],
        "seeds": {},
        "versions": {"solverbench": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    return Trained(equipped.spec, nfe, teacher.name, teacher.identity, parameters, tableau, record)


def keep(trained: Trained, source: Path, out: Path) -> Path:
    """Write an imported solver to where `zoo.find` looks in a results folder, and return that place.

    Raises:
        RecordError: another trained solver is there, which is left alone.
    """
    place = out / "trained" / trained.teacher / zoo.file_name(trained.spec, trained.nfe)
    if place.exists() and zoo.load(place).identity != trained.identity:
        raise RecordError(f"{source}: {place} holds another one; move it away or give another --out")
    zoo.save(trained, place)
    return place


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: there is no such file; give a checkpoint of the GAS repository") from None
    except OSError as error:
        raise RecordError(f"{path}: can't be read ({error.strerror}); give a file that can") from None


def _unpickled(content: bytes, path: Path) -> Mapping[str, Any]:
    """The checkpoint's dict, with nothing in it but tensors and plain values where they are needed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file makes torch's reader raise nearly anything
        raise RecordError(
            f"{path}: can't be read as tensors and plain values alone ({type(error).__name__}), nothing else is "
            "unpickled; give a checkpoint of the GAS repository"
        ) from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("ema"), dict):
        raise _foreign(path, "has no ema" if isinstance(checkpoint, dict) else f"is a {type(checkpoint).__name__}")
    return checkpoint


def _parameters(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The EMA parameters by name, float64."""
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
        raise _foreign(path, "has parameters that aren't plain floating point numbers")
    parameters = {name: part.detach().double() for name, part in zip(names, shadow, strict=True)}
    for name, part in parameters.items():
        if not part.isfinite().all():
            raise RecordError(f"{path}: {name} has a number that isn't finite; give a checkpoint from before that")
    return parameters


def _foreign(path: Path, what: str) -> RecordError:
    return RecordError(f"{path}: isn't a GAS checkpoint, it {what}; give {LAYOUT}")


def _number(value: Any) -> int | float | None:
    """A plain finite number of the checkpoint, for the record; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    plain = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return value if plain else None
