"""From what is asked for to cells: one per teacher, solver and number of calls, each with the key of its results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

import registries
from solverbench import files, plugins, seeds
from solverbench.method import grids
from solverbench.sampling import exact as solutions
from solverbench.method import tableau as tableaux
from solverbench.sampling import endpoints as targets
from solverbench.learned import zoo
from solverbench.errors import BudgetError, GridError, MissingError, UserError
from solverbench.evaluation.selection import Judging
from solverbench.sampling.sample import BATCH
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.spec import expand, make, numbers
from solverbench.store.folder import CellFolder, Store
from solverbench.method.tableau import Plan
from solverbench.sampling.endpoints import Goal
from solverbench.teachers.teacher import OWN, Teacher, load_teacher
from solverbench.method.tracing import check_linear, intervals, trace
from solverbench.learned.zoo import Trained

FORMAT = 2
"""Version of the key and of what results mean: raise it when equal keys would give different numbers."""

SAMPLES, REPLICATES, BLOCKS, PAIRED = 10_000, 3, 10, 2_000
"""Images per replicate, replicates, seed blocks per replicate, images per replicate compared with the teacher's own."""

EXACT = 1000
"""Images per replicate compared with the exact solution, where that is asked for: the first hundred of each block."""

MOST = 10_000_000
"""Images of a cell that can be asked for: 200 times a paper's 50 000."""

DONE, CACHED, FAILED, UNSUPPORTED, NEEDS_TRAINING = STATUSES = (
    "done",
    "cached",
    "failed",
    "unsupported",
    "needs-training",
)


@dataclass(frozen=True)
class Protocol:
    """Which images of a cell are made and how they are cut.

    Args:
        seeds: of all images: consecutive, replicate after replicate.
        samples: images per replicate, a multiple of 10.
        batch: images per call of the denoiser.
        full: compare every image with the teacher's own, not only the first 2000 of each replicate.
        exact: compare some with the exact solution of the teacher's ODE; None leaves that to the teacher.
        judging: what they are measured by.
    """

    seeds: range
    samples: int
    batch: int
    full: bool
    exact: bool | None = None
    judging: Judging = field(default_factory=Judging)

    @classmethod
    def of(
        cls,
        samples: int,
        replicates: int | None,
        chosen: range | str | None,
        batch: int | None,
        full: bool,
        exact: bool | None = None,
        judging: Judging | None = None,
    ) -> Protocol:
        """Return the protocol for what a user asked.

        Args:
            replicates: 3 if None and `chosen` doesn't say.
            chosen: seeds, a multiple of `samples`; the default ones if None.
            batch: the default if None.
            judging: the teacher's own if None.

        Raises:
            UserError: numbers out of range, or that contradict each other.
        """
        if samples < BLOCKS or samples % BLOCKS:
            near = max(round(samples / BLOCKS), 1) * BLOCKS
            raise UserError(f"samples {samples}: not a positive multiple of {BLOCKS} (seed blocks); use {near}")
        if replicates is not None and replicates < 1:
            raise UserError(f"replicates {replicates}: at least one is needed; use {REPLICATES}")
        if batch is not None and batch < 1:
            raise UserError(f"batch {batch}: at least one image is needed; use {BATCH}")
        if samples * (replicates or REPLICATES) > MOST:
            raise UserError(f"samples {samples} x {replicates or REPLICATES}: more than {MOST} images; ask for fewer")
        if isinstance(chosen, str):
            chosen = seeds.parse(chosen)
            if len(chosen) > MOST:
                raise UserError(f"seeds {seeds.label(chosen)}: more than {MOST} images; ask for fewer")
        if chosen is None:
            chosen = range(seeds.EVALUATION_START, seeds.EVALUATION_START + samples * (replicates or REPLICATES))
        if len(chosen) % samples or replicates not in (None, len(chosen) // samples):
            wanted = samples * (replicates or max(len(chosen) // samples, 1))
            raise UserError(
                f"seeds {seeds.label(chosen)}: {len(chosen)} seeds are not {replicates or 'a whole number of'} "
                f"replicates of {samples}; use {seeds.label(range(chosen.start, chosen.start + wanted))}, "
                "or other samples"
            )
        return cls(chosen, samples, batch or BATCH, full, exact, judging or Judging())

    @property
    def replicates(self) -> int:
        """R, the number of replicates."""
        return len(self.seeds) // self.samples

    @property
    def block(self) -> int:
        """Images per seed block."""
        return self.samples // BLOCKS

    @property
    def paired(self) -> int:
        """Images of a replicate, its first ones, that are compared with the teacher's own."""
        return self.samples if self.full else min(PAIRED, self.samples)

    @property
    def blocks(self) -> list[range]:
        """The seed blocks in order, 10 per replicate."""
        return [self.seeds[begin : begin + self.block] for begin in range(0, len(self.seeds), self.block)]

    def pairs(self, block: range) -> range:
        """Return the first seeds of a block that are compared with the teacher's own; perhaps none."""
        place = (block.start - self.seeds.start) % self.samples
        return block[: max(0, min(len(block), self.paired - place))]

    @property
    def solved(self) -> int:
        """Images of a replicate that are compared with the exact solution, where that is asked for."""
        return BLOCKS * min(EXACT // BLOCKS, self.block)

    def solves(self, block: range) -> range:
        """Return the first seeds of a block that are compared with the exact solution, where that is asked for."""
        return block[: self.solved // BLOCKS]


@dataclass(frozen=True, eq=False)
class Cell:
    """One teacher, solver and number of calls under a protocol.

    Args:
        solver: as it was asked for.
        spec: canonical.
        method: the solver's part of the key, `Solver.key`.
        learned: whether it was trained.
        adapt: what becomes of the teacher's denoiser, of a `solver` with such an option; the spec names it.
        targets: the teacher sampler's plan.
        plan: what is executed; None if the cell can't be run.
        obstacle: why it can't be run, a status and a reason.
        trained: the file that the learned solver's parameters are from; None of given ones.
        inferred: what the learned solver's paper leaves unknown, see `LearnedSolver.inferred`.
    """

    teacher: Teacher
    solver: str
    spec: str
    method: Mapping[str, Any]
    nfe: int
    learned: bool
    adapt: Callable[[Callable[[Tensor, Tensor], Tensor]], Callable[[Tensor, Tensor], Tensor]]
    protocol: Protocol
    targets: Goal
    plan: Plan | None = None
    obstacle: tuple[str, str] | None = None
    trained: Trained | None = None
    inferred: str = ""

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that the cell's numbers depend on, as plain JSON values. Written down in docs/store.md."""
        assert self.plan is not None
        evaluation = self.teacher.evaluation
        exact = {"exact": {"n": self.protocol.solved, **solutions.key(self.teacher)}} if self.exact else {}
        return {
            "format": FORMAT,
            "solver": tableaux.asked(self.method, self.plan),
            "schedule": self.teacher.schedule.key,
            **targets.key(self.teacher, self.targets, self.protocol.batch),
            "seeds": seeds.label(self.protocol.seeds),
            "samples": self.protocol.samples,
            "block": self.protocol.block,
            "paired": self.protocol.paired,
            **exact,
            **self.protocol.judging.key(self.teacher),
            **({"adapt": registries.fingerprint(self.adapt)} if self._adapted_by_plugin else {}),
            "evaluation": evaluation
            and {
                "quantiser": evaluation.quantiser,
                "extractor": evaluation.extractor_id,
                "data": evaluation.data.sha,
                "teacher": evaluation.teacher and evaluation.teacher.sha,
                **({} if evaluation.metrics == OWN else {"metrics": list(evaluation.metrics)}),
            },
        }

    @cached_property
    def address(self) -> str:
        """The sha256 of the key; empty if the cell can't be run."""
        return "" if self.plan is None else files.digest(self.key)

    @property
    def exact(self) -> bool:
        """Whether some of its images are compared with the exact solution: as asked, else as the teacher has it."""
        return self.teacher.exact if self.protocol.exact is None else self.protocol.exact

    @property
    def names(self) -> dict[str, Any]:
        """What people call it: recorded beside the key, no part of it."""
        trained = self.trained and self.trained.identity
        plugged = {"plugins": self.plugins} if self.plugins else {}
        told = {"teacher": self.teacher.name, "solver": self.solver, "spec": self.spec, "nfe": self.nfe}
        return {**told, "trained": trained, **plugged}

    @cached_property
    def plugins(self) -> dict[str, dict[str, str]]:
        """What of it isn't built in: kind and name to who offers it, and the sha256 of its source."""
        grid = re.search(r":grid=([a-z]\w*)", self.spec)
        trained = self.trained.record.get("recipe", {}) if self.trained else {}
        asked = {
            "solver": [self.spec.partition(":")[0]],
            "grid": [grid[1]] if grid else [],
            "teacher": [self.teacher.base] if self.teacher.spec else [],
            "metric": list(self.protocol.judging.scored(self.teacher)),
            "loss": [trained["loss"]] if "loss" in trained else [],
        }
        told = {
            f"{kind} {name}": plugins.provenance(registries.extensible[kind], name)
            for kind, names in asked.items()
            for name in names
        }
        return {what: each for what, each in told.items() if each}

    @property
    def _adapted_by_plugin(self) -> bool:
        """Whether code that isn't this project's stands between the plan and the teacher."""
        module = getattr(self.adapt, "__module__", "") or ""
        return module.partition(".")[0] not in ("solverbench", "baselines")

    @property
    def metrics(self) -> frozenset[str]:
        """What its images are measured by, beside the teacher's own features where nothing was asked for."""
        return frozenset(self.protocol.judging.metrics) - set(self.teacher.lacking)

    @property
    def metric_loss(self) -> bool:
        """Whether its solver was trained on the features that a metric judges it by."""
        return self.trained is not None and self.trained.metric_loss

    def __str__(self) -> str:
        return f"{self.solver} nfe={self.nfe} on {self.teacher.name}"


def resolve(
    solvers: str | Solver | Sequence[str | Solver],
    nfe: str | int | Sequence[int],
    teachers: str | Teacher | Sequence[str | Teacher],
    protocol: Protocol,
    out: Path,
    device: str,
) -> list[Cell]:
    """Return the cells asked for, by teacher, then solver, then number of calls; a solver asked for twice stands once.

    Raises:
        UserError: a name, option, value, number or seed that can't be meant, before anything is computed.
    """
    budgets = _budgets(nfe)
    wanted = list(_solvers(solvers))
    cells: list[Cell] = []
    for each in _teachers(teachers, device):
        teacher = protocol.judging.of_teacher(each, protocol.samples, protocol.block, out)
        if teacher.identity == Teacher.identity:
            raise UserError(
                f"teacher {teacher.name!r}: has no identity, so that its results can't be told from another network's; "
                "give Teacher(identity=...), such as the sha256 of its weights"
            )
        plan = targets.sampler_plan(teacher)
        for asked, solver in wanted:
            cells += _cells_of(asked, solver, budgets, teacher, plan, protocol, out)
    return cells


def check_possible(wanted: Sequence[Cell]) -> None:
    """Refuse a run in which nothing can be measured.

    Raises:
        MissingError: each cell is unsupported or needs training; the text says why the first of them can't be run.
    """
    lacking = [cell.obstacle for cell in wanted if cell.obstacle and cell.obstacle[0] in (UNSUPPORTED, NEEDS_TRAINING)]
    if not wanted or len(lacking) < len(wanted):
        return
    status, why = lacking[0]
    others = "" if len(wanted) == 1 else f" (and {len(wanted) - 1} more; 'solverbench plan' lists them)"
    raise MissingError(f"{wanted[0]}: {status}, so that there is nothing to measure{others}: {why}")


def again(cell: Cell, out: Path) -> Cell:
    """Return the cell as it stands now, with what has been trained for it since."""
    solver = zoo.learned(cell.spec)
    try:
        [found] = _cells_of(cell.solver, solver, [cell.nfe], cell.teacher, cell.targets, cell.protocol, out)
    except GridError as error:
        return blocked(cell, FAILED, str(error))
    return found


def blocked(cell: Cell, status: str, reason: str) -> Cell:
    """Return the cell with another obstacle."""
    return replace(cell, obstacle=(status, reason))


def _cells_of(
    asked: str, solver: Solver, budgets: list[int], teacher: Teacher, goal: Goal, protocol: Protocol, out: Path
) -> Iterator[Cell]:
    """The cells of one solver. Levels that fit no requested budget are a mistake, else unsupported where they don't."""
    misfits: list[GridError] = []

    def cell(nfe: int, plan: Plan | None, obstacle: tuple[str, str] | None, trained: Trained | None) -> Cell:
        method = equipped.key if plan is not None else {}
        about = teacher, asked, solver.spec, method, nfe, solver.learned, solver.adapt
        inferred = solver.inferred if isinstance(solver, LearnedSolver) else ""
        return Cell(*about, protocol, goal, plan, obstacle, trained, inferred)

    for nfe in budgets:
        equipped, trained = solver, None
        if isinstance(solver, LearnedSolver) and solver.parameters is None:
            trained = zoo.find(solver, teacher, nfe, [out / "trained"])
            if trained is None:
                yield cell(nfe, None, _lack(solver, asked, nfe, teacher, out), None)
                continue
            seeds.check_apart(protocol.seeds, trained.seeds, f"{asked} nfe={nfe}")
            equipped = trained.solver
        try:
            grid = equipped.grid(teacher.schedule, intervals(equipped, nfe))
            tableau = trace(equipped, grid, check=False)
            if trained is not None:
                if not trained.still(tableau):
                    yield cell(nfe, None, (NEEDS_TRAINING, _untrained(asked, nfe, teacher, out, zoo.OUTDATED)), None)
                    continue
                tableau = trained.tableau
            plan = tableau.plan_from_noise(teacher.schedule)
            equipped.adapt(teacher.denoise)  # what can't be made here would end the run later
            found = cell(nfe, plan, None, trained)
            if stale := _stale(found, Store(out).at(found.address)):
                yield cell(nfe, None, (FAILED, stale), trained)
                continue
            if not Store(out).at(found.address).done:  # one that is done was checked when it was made
                check_linear(equipped, grid, tableau)
        except BudgetError as error:
            yield cell(nfe, None, (UNSUPPORTED, str(error)), trained)
        except GridError as error:
            if grids.refused(error) and (where := plugins.place(error)):  # no grid at all is a bug, not a misfit
                yield cell(nfe, None, (FAILED, f"{where}: {error}; mend it there"), trained)
                continue
            misfits.append(error)
            if len(misfits) == len(budgets):
                raise
            yield cell(nfe, None, (UNSUPPORTED, str(error)), trained)
        except (Exception, SystemExit) as error:  # a plugin may raise anything, and the other cells go on
            yield cell(nfe, None, (FAILED, reason(error).removeprefix(f"{solver.spec}: ")), trained)
        else:
            claim = f"claims nfe={nfe}, but its loop makes {plan.nfe} calls"
            yield found if plan.nfe == nfe else cell(nfe, None, (FAILED, claim), trained)


def _stale(cell: Cell, folder: CellFolder) -> str:
    """Why what is stored at a cell's address isn't its result; empty if nothing is wrong or stored."""
    stored = folder.plan()
    if stored is None or cell.plan is None or cell.plan.fits(stored):
        return ""
    return (
        f"{folder.path}: holds results of the same name from other numbers: what the solver computes has changed, but "
        "not its source, as when a function that a plugin imports was edited; raise `version` in the solver's class, "
        "or delete that folder"
    )


def reason(error: BaseException) -> str:
    """Return one line that says why: a user's mistake in its own words, another exception with type and place.

    The place is the line of a plugin that it came up in, if it came up in one.
    """
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    return ": ".join(filter(None, (plugins.place(error), type(error).__name__, text)))


def _lack(solver: LearnedSolver, asked: str, nfe: int, teacher: Teacher, out: Path) -> tuple[str, str]:
    """Why a learned solver without parameters can't be run: a budget that no training would mend, or none yet."""
    try:
        solver.steps(nfe)
    except BudgetError as error:
        return UNSUPPORTED, str(error)
    return NEEDS_TRAINING, _untrained(asked, nfe, teacher, out)


def _untrained(asked: str, nfe: int, teacher: Teacher, out: Path, lack: str = "no trained parameters") -> str:
    command = zoo.training_command(asked, nfe, teacher, out)
    if command is None:
        name = asked.partition(":")[0]
        return f"{lack}, and no recipe to train {name} by; give it parameters in Python"
    return f"{lack}; run: {command}"


def _budgets(nfe: str | int | Sequence[int]) -> list[int]:
    if isinstance(nfe, int):
        nfe = [nfe]
    found = numbers(nfe if isinstance(nfe, str) else ",".join(map(str, nfe)))
    if not found:
        raise UserError("nfe: no number of calls is given; give some, as in 3-10")
    return found


def _solvers(solvers: str | Solver | Sequence[str | Solver]) -> Iterator[tuple[str, Solver]]:
    """Each solver with the name it is shown by: as asked, or its spec; the same one twice stands once."""
    listed = [solvers] if isinstance(solvers, (str, Solver)) else solvers
    seen: dict[tuple[str, int], Solver] = {}
    names: set[str] = set()
    for item in listed:
        for one in [item] if isinstance(item, Solver) else expand(item):
            solver = make(one) if isinstance(one, str) else one
            spec = solver.spec
            same = spec, id(getattr(solver, "parameters", None))
            if same in seen:
                continue
            name = one if isinstance(one, str) else spec
            if name in names:
                raise UserError(f"solvers: {name} is given with two sets of parameters; measure one set per run")
            seen[same] = solver
            names.add(name)
            yield name, solver
    if not seen:
        raise UserError("solvers: none is given; give some, as in gas,dpm")


def _teachers(teachers: str | Teacher | Sequence[str | Teacher], device: str) -> Iterator[Teacher]:
    listed = [teachers] if isinstance(teachers, (str, Teacher)) else teachers
    seen: dict[str, str] = {}
    for item in listed:
        for one in [item] if isinstance(item, Teacher) else item.split(","):
            teacher = one.to(device) if isinstance(one, Teacher) else load_teacher(one.strip(), device)
            if teacher.name not in seen:
                seen[teacher.name] = teacher.identity
                yield teacher
            elif seen[teacher.name] != teacher.identity:
                raise UserError(f"teachers: two different ones are named {teacher.name!r}; give them other names")
    if not seen:
        raise UserError("teachers: none is given; give one, as in digits")
