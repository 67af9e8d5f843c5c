"""The error of a teacher sampler, measured: the same seeds with twice its calls, and by a solver of another family.

Two samplers of one ODE that differ by e can't both be within e/2 of its solution. The difference to twice the calls
falls with the sampler's own error; the second solver shows what both of these share. The images are kept in the store
as targets are, one file for each sampler, so that an interrupted measurement goes on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solverbench import files, seeds
from solverbench.errors import RecordError
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.sampling import endpoints
from solverbench.sampling.devices import pool, worker_count
from solverbench.sampling.endpoints import Goal
from solverbench.sampling.sample import BATCH, BatchLimit, Cancel, SampleError, decoded
from solverbench.store.shared import made_once
from solverbench.teachers.convergence import Comparison, Convergence
from solverbench.teachers.teacher import Teacher

IMAGES, FEW = 64, 16
"""Images that are compared; `FEW` of a latent model, or where an image has more than `SMALL` values."""

SMALL = 3 * 32 * 32
"""Number of values of an image up to which `IMAGES` of them are compared."""

LEAST = 40
"""Smallest number of calls of the second solver, so that a coarse one isn't compared with another coarse one."""

EXPONENTIAL = ("adams", "dpm", "exprk", "unipc")
"""Solvers of data predictions in log sigma; the second solver to these is `deis`, to all others `unipc`."""

RULE = 1
"""Version of the rule by which the other samplers are chosen; raise it when the rule changes."""

NAMES = ("doubled", "other")
"""Names of the two comparisons in the store."""

GRID = "time_quadratic"
"""Grid of the second solver if the sampler's own grid has no such number of steps, as a published table of levels."""


@dataclass(frozen=True, eq=False)
class Rival:
    """A sampler whose images the teacher sampler's are compared with.

    Args:
        name: array of its comparison in the store, `doubled` or `other`.
        teacher: the teacher with this sampler in place of its own.
        plan: its plan.
    """

    name: str
    teacher: Teacher
    plan: Goal

    @property
    def what(self) -> str:
        """Its name in a report."""
        if self.name == "doubled":
            return f"the same sampler with {self.teacher.sampler_nfe} calls"
        return f"{self.teacher.sampler} with {self.teacher.sampler_nfe} calls"


@dataclass(frozen=True, eq=False)
class Measurement:
    """The measurement of a teacher sampler's error in a store.

    Args:
        out: the results folder.
        batch: images per call of the denoiser.
        images: number of images; if None `IMAGES`, or `FEW` for larger ones.
        goal: the teacher sampler's plan, if it is known already.
    """

    teacher: Teacher
    out: Path
    batch: int = BATCH
    images: int | None = None
    goal: Goal | None = None

    @cached_property
    def plan(self) -> Goal:
        """The teacher sampler's plan."""
        return endpoints.sampler_plan(self.teacher) if self.goal is None else self.goal

    @cached_property
    def seeds(self) -> range:
        """Seeds of the compared images: the first evaluation seeds."""
        small = self.teacher.decode is None and math.prod(self.teacher.shape) <= SMALL
        count = self.images or (IMAGES if small else FEW)
        return range(seeds.EVALUATION_START, seeds.EVALUATION_START + count)

    @cached_property
    def rivals(self) -> Sequence[Rival | Comparison]:
        """The samplers to compare with; a comparison without a number in place of one that can't be made."""
        return doubled(self.teacher), other(self.teacher)

    @property
    def key(self) -> dict[str, Any]:
        """Everything that the comparison depends on besides the seeds: the sampler, and the rule for the others."""
        others = [make(f"{name}:order=3").key for name in ("deis", "unipc")]
        return {**endpoints.key(self.teacher, self.plan, self._batch), "rule": RULE, "others": others}

    @property
    def place(self) -> Path:
        """The file with each image's mean squared differences."""
        return Path(self.out) / "convergence" / files.digest(self.key)[:32] / f"{seeds.label(self.seeds)}.npz"

    @property
    def known(self) -> Convergence | None:
        """The error that comes with the teacher or is stored; None if it isn't measured yet."""
        if (told := shipped(self.teacher, self.plan)) is not None or not self.place.exists():
            return told
        try:
            return self._told(files.read_arrays(self.place))
        except (RecordError, KeyError):
            return None

    @property
    def every(self) -> list[Rival]:
        """The samplers, the teacher's own first."""
        own = Rival("own", self.teacher, self.plan)
        return [own, *(each for each in self.rivals if isinstance(each, Rival))]

    @property
    def missing(self) -> list[Rival]:
        """Those of `every` whose images aren't stored yet."""
        return [each for each in self.every if not self._path(each).exists()]

    def calls(self, rival: Rival) -> int:
        """Return the denoiser calls times images of one sampler."""
        return len(self.seeds) * rival.teacher.sampler_nfe

    def sample(self, rival: Rival, **shared: Any) -> None:
        """Make and store the images of one sampler; call it from a worker. For the arguments see `endpoints.piece`."""
        endpoints.piece(rival.teacher, rival.plan, self.seeds, self.out, batch=self._batch, **shared)

    def result(self, **shared: Any) -> Convergence:
        """Return the error, from the stored images; makes what is missing.

        Raises:
            SampleError: the teacher sampler's own images can't be made.
            StoreError, RecordError: the store can't be used.
        """

        def compare() -> dict[str, NDArray[Any]]:
            own = self._images(Rival("own", self.teacher, self.plan), shared)
            found: dict[str, NDArray[Any]] = {}
            for name, each in zip(NAMES, self.rivals, strict=True):
                found[f"{name}_what"] = _bytes(each.what)
                if isinstance(each, Rival):
                    found[name], why = self._differences(own, each, shared), "images not finite"
                else:
                    found[name], why = np.full(len(own), np.nan), each.reason
                found[f"{name}_reason"] = _bytes(why)
            return found

        return self._told(made_once(self.place, Path(self.out), compare, **_for_store(shared)))

    def _told(self, arrays: Mapping[str, NDArray[Any]]) -> Convergence:
        compared = tuple(_read(name, arrays) for name in NAMES)
        return Convergence(len(self.seeds), seeds.label(self.seeds), compared, self.plan.asked)

    @property
    def _batch(self) -> int:
        return min(self.batch, len(self.seeds))

    def _path(self, rival: Rival) -> Path:
        return endpoints.location(rival.teacher, rival.plan, self.seeds, self.out, batch=self._batch)

    def _images(self, rival: Rival, shared: Mapping[str, Any]) -> NDArray[np.float64]:
        states = endpoints.piece(rival.teacher, rival.plan, self.seeds, self.out, batch=self._batch, **shared)
        images: NDArray[np.float64] = decoded(self.teacher, states, BatchLimit(self._batch)).double().cpu().numpy()
        return images

    def _differences(self, own: NDArray[np.float64], rival: Rival, shared: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return each image's mean squared difference [n]; NaN where the rival has no finite images."""
        try:
            apart = self._images(rival, shared) - own
        except SampleError:
            return np.full(len(own), np.nan)
        found: NDArray[np.float64] = np.square(apart).reshape(len(own), -1).mean(1)
        return found


def measure(teacher: Teacher, out: Path | str, *, batch: int = BATCH, images: int | None = None) -> Convergence:
    """Return the error of the teacher's sampler: that which comes with it, a stored one, or a measured one.

    Args:
        out: the results folder, which keeps images and comparison.
        batch: images per call of the denoiser.
        images: number of images; see `Measurement`.

    Raises:
        SampleError: the teacher sampler's images can't be made.
        StoreError, RecordError: the store can't be used.
    """
    task = Measurement(teacher, Path(out), batch, images)
    if (found := task.known) is not None:
        return found
    with pool(worker_count(teacher.device)) as threads:
        for future in [threads.submit(task.sample, rival) for rival in task.missing]:
            error = future.exception()
            if error is not None and not isinstance(error, SampleError):
                raise error
        return threads.submit(task.result).result()


def shipped(teacher: Teacher, plan: Goal) -> Convergence | None:
    """Return the error that comes with the teacher, if it is about this sampler; None if not."""
    told = teacher.sampler_error
    return told if told is not None and told.asked == plan.asked else None


def unknown(reason: str) -> Convergence:
    """Return an error that isn't known, with the reason."""
    return Convergence(0, "", (Comparison("not measured", None, reason),), "")


def doubled(teacher: Teacher) -> Rival | Comparison:
    """Return the teacher sampler with twice its calls, or the next number that the solver can spend."""
    solver, most = make(teacher.sampler), 2 * teacher.sampler_nfe
    found = _first("doubled", teacher, [(solver, nfe) for nfe in range(most, most + 6)])
    return found or Comparison("twice its calls", None, f"{teacher.sampler} can't spend {most} calls")


def other(teacher: Teacher) -> Rival | Comparison:
    """Return a third-order solver of another family with twice the teacher sampler's calls, on its grid if possible."""
    solver, nfe = make(teacher.sampler), max(2 * teacher.sampler_nfe, LEAST)
    name = "deis" if solver.name in EXPONENTIAL else "unipc"
    end = ":end=zero" if getattr(solver, "end", "") == "zero" else ""
    rho = "" if solver.rho is None else f":rho={solver.rho:g}"
    specs = [f"{name}:order=3{end}:grid={solver.levels}{rho}", f"{name}:order=3{end}:grid={GRID}"]
    found = _first("other", teacher, [(spec, nfe) for spec in specs])
    return found or Comparison(f"{name}:order=3", None, f"can't spend {nfe} calls on this model's levels")


def _first(name: str, teacher: Teacher, candidates: Iterable[tuple[Solver | str, int]]) -> Rival | None:
    """Return the first candidate that has a plan; None if none has."""
    for solver, nfe in candidates:
        try:
            made = make(solver) if isinstance(solver, str) else solver
            plan = endpoints.goal(made, nfe, teacher.schedule)
        except Exception:  # a plugin's solver may raise anything
            continue
        if plan.nfe == nfe:
            spec = solver if isinstance(solver, str) else teacher.sampler
            return Rival(name, dataclasses.replace(teacher, sampler=spec, sampler_nfe=nfe), plan)
    return None


def _read(name: str, arrays: Mapping[str, NDArray[Any]]) -> Comparison:
    rmse, what = float(np.sqrt(arrays[name].mean())), arrays[f"{name}_what"].tobytes().decode()
    if math.isfinite(rmse):
        return Comparison(what, rmse)
    return Comparison(what, None, arrays[f"{name}_reason"].tobytes().decode())


def _bytes(text: str) -> NDArray[Any]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _for_store(shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `endpoints.piece` as those of `made_once`."""
    stop: Cancel | None = shared.get("stop")
    say: Callable[[str], None] = shared.get("say", lambda line: None)
    return {"stop": (lambda: None) if stop is None else stop.check, "say": say}
