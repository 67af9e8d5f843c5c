"""The text of `solverbench info` and `doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from solverbench import extras, plugins, registries, tested
from solverbench.cli import zoo_listing
from solverbench.errors import BudgetError, LoopError, UserError
from solverbench.method.declarations import declared
from solverbench.method.loops import intervals
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.spec import make, ranges, solver_class
from solverbench.metrics import plugin
from solverbench.sampling import convergence, endpoints
from solverbench.sampling import exact as solutions
from solverbench.store.folder import Store
from solverbench.teachers.loading import load_teacher
from solverbench.wording import printable

BUDGETS = range(1, 13)


def named(name: str, teacher_name: str, out: Path) -> str:
    """Return the description of a name of any kind; a solver (options allowed) takes precedence.

    A sampler or scheduler of diffusers or ComfyUI is described by its spec here.

    Args:
        teacher_name: the teacher whose trained files are listed first for a learned solver.

    Raises:
        UnknownNameError, SpecError, PluginError: the name is unknown, invalid, or not available.
    """
    if name.partition(":")[0] not in registries.solvers:
        if name in registries.teachers:
            return teacher(name)
        for registry in (registries.grids, registries.metrics, registries.extractors, registries.losses):
            if name in registry:
                return thing(registry, name)
        if found := registries.foreign(name):
            return "\n".join(map(foreign, found))
    return solver(name, teacher_name, out)


def foreign(found: registries.Foreign) -> str:
    """Return the description of another program's sampler or scheduler."""
    lines = [f"{found.name}: {found.title}", f"  spec     {found.spec or 'none'}", f"  agrees   {found.relation}"]
    return "\n".join([*lines, *([f"  differs  {found.differs}"] if found.differs else [])])


def thing(registry: registries.Registry, name: str) -> str:
    """Return the description of a grid, a metric, an extractor or a loss: its origin, and its options.

    Raises:
        PluginError: the plugin that offers it fails.
    """
    found, full = plugins.get(registry, name), registry.resolve(name)
    lines = [
        f"{' = '.join([full, *registry.aliases(full)])}: {registry.about(full)}",
        f"  kind     {registry.kind}",
        f"  defined  {registry.origin(full)}",
        *_offered(registry, full),
    ]
    if registry is registries.metrics:
        told = plugin.find(full)
        lines.append(f"  better   {('higher' if told.higher else 'lower') if told.ranked else 'near 0'}")
    options = getattr(found, "__kwdefaults__", None) if registry is registries.grids else None
    if options:
        lines += ["  options", *(f"    {key} = {_text(value)}" for key, value in options.items())]
    return "\n".join(lines)


def solver(spec: str, teacher: str, out: Path) -> str:
    """Return the description of a solver: its options, and its possible budgets.

    Raises:
        UnknownNameError, SpecError: the spec is unknown or invalid.
    """
    found = make(spec)
    cls = solver_class(spec.partition(":")[0])
    names = [cls.name, *registries.solvers.aliases(cls.name)]
    lines = [
        f"{' = '.join(names)}: {registries.solvers.about(cls.name)}",
        f"  spec     {found.spec}",
        f"  paper    {cls.paper}",
        f"  budgets  {_budgets(found)}",
        f"  defined  {registries.solvers.origin(cls.name)}",
        *_offered(registries.solvers, cls.name),
        "  options",
    ]
    for key, (field, _) in sorted(declared(cls).items()):
        choices = f" ({' | '.join(map(_text, field.metadata['choices']))})" if field.metadata["choices"] else ""
        default = "" if field.default is None else f" = {_text(field.default)}"
        lines.append(f"    {key + default:<26} {field.metadata['help']}{choices}")
    lines += _recommended(cls.name)
    if teacher not in registries.teachers:
        load_teacher(teacher)
    if isinstance(found, LearnedSolver):
        lines += _trained(found, teacher, out)
    return "\n".join(lines)


def _offered(registry: registries.Registry, name: str) -> list[str]:
    """Return a line with the plugin that provides it; empty if none does."""
    told = plugins.provenance(registry, name)
    return [f"  plugin   {told['source']}, sha256 {told['sha256'][:16] or 'unknown'}"] if told else []


def _trained(asked: LearnedSolver, teacher: str, out: Path) -> Iterator[str]:
    """Yield the teachers and numbers of calls with trained parameters, the requested teacher first."""
    budgets: dict[str, set[int]] = {teacher: set()}
    for entry in zoo_listing.entries(out):
        if entry.trained is not None and entry.trained.spec == asked.spec:
            budgets.setdefault(entry.trained.teacher, set()).add(entry.trained.nfe)
    for n, (name, there) in enumerate(budgets.items()):
        yield f"  {'' if n else 'trained':<8} on {printable(name)} for nfe {ranges(sorted(there)) or 'none'}"


def _recommended(name: str) -> list[str]:
    """Return the options that the literature uses, by family of teacher, with the source."""
    found = registries.recommended(name)
    lines = [
        f"    {family:<17} {name}:{entry['options']}\n{'':<22} {entry['source']}" for family, entry in found.items()
    ]
    return ["  recommended", *lines] if lines else []


def teacher(name: str) -> str:
    """Return the description of a teacher and of the references for its samples."""
    found = load_teacher(name)
    schedule, judged = found.schedule, found.evaluation
    lines = [
        f"{name}: {registries.teachers.about(name)}",
        *_offered(registries.teachers, name),
        f"  image      {' x '.join(map(str, found.shape))}",
        f"  levels     {schedule.sigma_max:g} to {schedule.sigma_min:g}, {type(schedule).__name__}",
        f"  identity   {found.identity}",
        f"  sampler    {found.sampler}, {found.sampler_nfe} calls",
    ]
    told = convergence.shipped(found, endpoints.sampler_plan(found))
    lines.append(f"  error      {told.text if told is not None else 'measured by a run, once for each results folder'}")
    asked = "measured unless --no-exact" if found.exact else "measured with --exact"
    lines.append(f"  exact      {solutions.describe(found)}; {asked}")
    if judged is not None:
        lines += [
            f"  extractor  {judged.extractor_id}",
            f"  quantiser  {judged.quantiser}",
            f"  data       {judged.data.name}" + (f", n = {judged.data.moments.n}" if judged.data.sha else ""),
        ]
        if judged.teacher is not None:
            lines.append(f"  samples    {judged.teacher.name}, n = {judged.teacher.moments.n}")
    return "\n".join(lines)


def doctor(out: Path) -> Iterator[tuple[bool | None, str]]:
    """Yield (whether it is in order, a line on it) for each requirement of a run; None for an absent extra."""
    yield True, f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores"
    for package in ("torch", "numpy", "scipy", "pandas", "seaborn", "torchdiffeq", "safetensors"):
        yield True, f"{package} {importlib.metadata.version(package)}"
    yield from ((True, line) for line in tested.newer(torch.__version__))
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield True, f"CUDA: {', '.join(devices) or 'no device; runs use the CPU'}"
    for name, extra in extras.EXTRAS.items():
        there = importlib.util.find_spec(extra.module) is not None
        said = "installed" if there else f"not installed ({extras.install(name)})"
        yield there or None, f"extra {name}, for {extra.purpose}: {said}"
    for name in registries.teachers:
        yield _attempt(f"teacher {name}", lambda name=name: f"identity {load_teacher(name).identity[:12]}")
    tried = {name: _attempt(f"solver {name}", lambda name=name: make(name).spec) for name in registries.solvers}
    well = [name for name, (good, _) in tried.items() if good]
    yield True, f"{len(well)} solvers: {', '.join(well)}"
    yield from (each for each in tried.values() if not each[0])
    yield _attempt(f"results folder {out}", lambda: _writable(out))


def _attempt(what: str, trial: Any) -> tuple[bool, str]:
    try:
        return True, f"{what}: {trial()}"
    except (UserError, ImportError) as error:
        return False, f"{what}: {error}"


def _writable(out: Path) -> str:
    if not out.exists():
        parent = next(p for p in out.resolve().parents if p.exists())
        if not os.access(parent, os.W_OK):
            raise UserError(asked=out, wrong=f"{parent} can't be written", remedy="choose another --out")
        return "doesn't exist yet, but can be created"
    Store.look(out)
    try:
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UserError(
            asked=out, wrong=f"can't be written ({error.strerror})", remedy="choose another --out"
        ) from None
    return "exists, readable and writable"


def _budgets(found: Solver) -> str:
    able = []
    for nfe in BUDGETS:
        try:
            intervals(found, nfe)
        except BudgetError:
            continue
        except LoopError as error:
            return f"unknown: {error.without(found.spec)}"
        able.append(nfe)
    return "every nfe" if len(able) == len(BUDGETS) else f"nfe {ranges(able)}, of {BUDGETS[0]}-{BUDGETS[-1]} tried"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
