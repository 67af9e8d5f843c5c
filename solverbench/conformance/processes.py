"""Checks of result keys in another process, which detect use of hash(), clocks or global random states."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from solverbench import registries
from solverbench.conformance import trials
from solverbench.conformance.declarations import from_spec
from solverbench.conformance.trials import Failed
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.spec import ranges
from solverbench.method.tracing import trace
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

TIMEOUT = 600.0
"""Timeout of the other process in seconds; on a busy machine, importing torch alone takes minutes."""

_REMEDY = "use no hash(), id(), time, sets or random numbers"

_INSIDE = "SOLVERBENCH_OTHER_PROCESS"
"""Environment variable of the other process, so that a file that checks itself on import starts no third process."""

_answers: dict[int, tuple[Solver | Teacher, dict[str, str]]] = {}
"""Answers received by `ask`, by the subject's id; the subject is kept alive so that its id stays unique."""


def ask(subjects: Sequence[object]) -> None:
    """Get the keys of all solvers and teachers from one process, so that their checks need no process of their own."""
    able = [each for each in subjects if isinstance(each, Solver | Teacher) and findable(each)]
    if not able:
        return
    # A subject that cannot be made there is reported by its own check.
    with contextlib.suppress(Failed):
        for subject, found in zip(able, elsewhere(able), strict=True):
            _answers[id(subject)] = subject, found


def _there(subject: Solver | Teacher) -> dict[str, str]:
    return _answers[id(subject)][1] if id(subject) in _answers else elsewhere([subject])[0]


def cell_key(solver: Solver, schedule: NoiseSchedule) -> str:
    """Raise unless another process makes the same plans and thus finds the same results.

    The check uses the EDM schedule, independent of the schedule of the other checks.
    """
    here = keys(solver)
    there = _there(solver)
    differing = [budget for budget in here if there.get(budget) != here[budget]]
    if differing:
        raise Failed(f"another process gets other results at nfe={', '.join(differing)}; {_REMEDY}")
    return f"equal in two processes at {ranges(map(int, here)) or 'no'} calls"


def teacher_key(teacher: Teacher) -> str:
    """Raise unless another process loads a teacher with the same identity, schedule and network output."""
    here = keys(teacher)
    there = _there(teacher)
    for what, value in here.items():
        if there.get(what) != value:
            raise Failed(f"another process gives the {what} {there.get(what)}, not {value}; {_REMEDY}")
    return "equal in two processes"


def findable(subject: Solver | Teacher) -> bool:
    """Return whether another process can find the solver's class or the teacher's loader."""
    if _INSIDE in os.environ:
        return False
    if isinstance(subject, Teacher):
        return loadable(subject) and _file(registries.teachers.get(subject.base)) is not None
    return _file(type(subject)) is not None


def loadable(teacher: Teacher) -> bool:
    """Return whether the teacher was loaded by a registered name."""
    return bool(teacher.spec) and teacher.base in registries.teachers


def keys(subject: Solver | Teacher) -> dict[str, str]:
    """Return a solver's spec and plan key by budget, or a teacher's identity, schedule and output digest."""
    if isinstance(subject, Teacher):
        x = torch.randn(1, *subject.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            d = subject.denoiser([0])(x, torch.tensor(subject.schedule.sigma_first, dtype=torch.float64))
        # Rounded, because the other process may use fewer threads and sum in another order.
        numbers = [f"{value:.2e}" for value in d.flatten()[:64].tolist()]
        output = hashlib.sha256(" ".join(numbers).encode()).hexdigest()
        return {"identity": subject.identity, "schedule": repr(subject.schedule), "output": output[:12]}
    schedule = EDM()
    plans = {
        str(budget): trace(ready, grid, check=False).plan_from_noise(schedule)
        for budget, ready, grid in trials.runs(subject, schedule)
    }
    return {budget: f"{subject.spec} {plan.key}" for budget, plan in plans.items()}


def elsewhere(subjects: Sequence[Solver | Teacher]) -> list[dict[str, str]]:
    """Return `keys` of each of `subjects`, which must be `findable`, computed in one new process.

    Raises:
        Failed: the process ends with an error or times out.
    """
    asked = json.dumps([_described(subject) for subject in subjects])
    known = {**os.environ, _INSIDE: "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    known["PYTHONHASHSEED"] = "random"
    command = [sys.executable, "-c", f"from {__name__} import answer; answer()"]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, env=known, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Failed(
            f"loading takes more than {TIMEOUT:g} seconds in another process; compute less at import"
        ) from None
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise Failed(f"another process can't load it ({said}); make its file importable on its own")
    found: list[dict[str, str]] = json.loads(done.stdout.rpartition("\n")[2])
    return found


def answer() -> None:
    """Write the keys of the subjects described on standard input; this runs in the other process."""
    found = [keys(_made(each)) for each in json.load(sys.stdin)]
    sys.stdout.write("\n" + json.dumps(found))


def _described(subject: Solver | Teacher) -> dict[str, Any]:
    if isinstance(subject, Teacher):
        return {**_located(registries.teachers.get(subject.base)), "teacher": subject.base, "spec": subject.spec}
    held = getattr(subject, "parameters", None)
    parameters = None if held is None else {name: tensor.tolist() for name, tensor in held.items()}
    return {**_located(type(subject)), "spec": subject.spec, "parameters": parameters}


def _located(thing: Any) -> dict[str, str]:
    file = _file(thing)
    assert file is not None
    # The other process imports a script and does not run it.
    module = file.stem if thing.__module__ == "__main__" else thing.__module__
    return {"module": module, "file": str(file.resolve()), "name": thing.__qualname__}


def _file(thing: Any) -> Path | None:
    """Return the file in which an object is defined at top level; None if in a notebook or a function."""
    try:
        file = Path(inspect.getsourcefile(thing) or "")
    except (OSError, TypeError):
        return None
    return file if file.is_file() and "<locals>" not in thing.__qualname__ else None


def _made(described: dict[str, Any]) -> Solver | Teacher:
    found = _module(described["module"], described["file"])
    for part in described["name"].split("."):
        found = getattr(found, part)
    if "teacher" in described:
        if described["teacher"] not in registries.teachers:
            registries.teachers.register(described["teacher"], found)
        return load_teacher(described["spec"])
    assert isinstance(found, type)
    assert issubclass(found, Solver)
    solver = from_spec(found, described["spec"])
    if described["parameters"] is None:
        return solver
    assert isinstance(solver, LearnedSolver)
    held = described["parameters"].items()
    return solver.with_parameters({name: torch.tensor(values, dtype=torch.float64) for name, values in held})


def _module(name: str, file: str) -> Any:
    """Return the module `name` if it is `file`; else load `file` under that name."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # part of a missing package, as for tests; or __main__
        spec = None
    if spec is not None and spec.origin is not None and Path(spec.origin).samefile(file):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
