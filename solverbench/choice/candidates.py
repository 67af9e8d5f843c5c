"""The candidates of a choice: solvers on grids, each with a plan; equal plans are one candidate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solverbench.bench import resolve, train_missing
from solverbench.bench.cells import FAILED, Cell, reason
from solverbench.bench.progress import Listener
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.errors import RecordError, UserError
from solverbench.learned import trained_files, zoo
from solverbench.learned.searches import search
from solverbench.method.spec import expand
from solverbench.method.tableau import Plan
from solverbench.teachers.teacher import Teacher

SOLVERS = (
    "dpm", "unipc", "deis", "ipndm", "ipndm_v", "dpm:order=2", "unipc:order=2", "deis:order=2", "ipndm_v:order=2",
    "adams", "cab", "dpm2", "exprk", "heun", "ge", "euler",
)  # fmt: skip
"""Classical solvers that a choice is made from, the most promising first."""

GRIDS = (
    "logsnr", "polynomial", "time_uniform", "time_quadratic", "oss", "dmn", "gits", "arctan", "pipeline", "trailing",
    "beta", "flow_shift",
)  # fmt: skip
"""Grids that each of them is tried on besides its own; those that a schedule doesn't have are left out."""

SEARCHED = 0.2
"""Largest share of the calls that searches of grids may spend."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One plan.

    Args:
        cell: its cell; `cell.solver` is its spec as it would be typed.
        plan: its plan.
        names: other specs that give the same plan.
    """

    cell: Cell
    plan: Plan
    names: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """Its spec."""
        return self.cell.solver

    @property
    def nfe(self) -> int:
        """Number of calls."""
        return self.cell.nfe

    @property
    def key(self) -> str:
        """Its name in the files of a race."""
        return f"{self.nfe} {self.spec}"


@dataclass(frozen=True)
class Field:
    """The candidates of all budgets.

    Args:
        candidates: in the order of promise.
        failed: spec with number of calls to the reason why it can't be computed.
        left_out: spec with number of calls to the reason why it takes no part, such as a number of calls that the
            solver doesn't have.
        searched: network calls that searches of grids spent, those of earlier runs included.
        notes: lines for the user.
    """

    candidates: Sequence[Candidate]
    failed: dict[str, str]
    left_out: dict[str, str]
    searched: int
    notes: Sequence[str]


def specs(teacher: Teacher, budgets: Iterable[int], out: Path) -> list[str]:
    """Return the specs to try: the trained solvers that are at hand for the teacher, then solvers on grids."""
    grids = ["", *(f":grid={name}" for name in GRIDS)]
    return [*_trained(teacher, budgets, out), *(solver + grid for grid in grids for solver in SOLVERS)]


def _trained(teacher: Teacher, budgets: Iterable[int], out: Path) -> list[str]:
    """Return the specs of trained solvers for some of the budgets, as they would be typed."""
    found: dict[str, None] = {}
    for folder in zoo.places(out).values():
        for nfe in budgets:
            for path in sorted((folder / teacher.name).glob(f"*-nfe{nfe}.safetensors")):
                try:
                    trained = trained_files.load(path, teacher=teacher, nfe=nfe)
                except (RecordError, UserError):
                    continue  # `zoo list` names it
                if not trained.metric_loss:
                    found[trained_files.short(trained.solver)] = None
    return list(found)


def gather(
    teacher: Teacher, budgets: Sequence[int], out: Path, tell: Listener, *, solvers: str | None, calls: int | None
) -> Field:
    """Return the candidates; grids that have to be searched on the teacher are searched first.

    Args:
        solvers: specs to choose from, joined with commas; if None, `specs`.
        calls: the network calls that all may cost; None for no limit.

    Raises:
        UserError: a spec that can't be read; no candidate at some budget.
    """
    asked = expand(solvers) if solvers is not None else specs(teacher, budgets, out)
    options = RunOptions(solvers=asked, nfe=budgets, teachers=teacher, device=teacher.device, out=str(out))
    wanted, failed, left_out = list[Cell](), dict[str, str](), dict[str, str]()
    for cell in resolve.resolve(options, Protocol.of(options)):
        runs, denoise = cell.plan is not None or cell.needs is not None, cell.teacher.denoise
        try:
            if not runs or cell.adapt(denoise) is denoise:
                wanted.append(cell)
            else:
                left_out[_named(cell)] = "it changes the network's outputs by its own code, so it can share no calls"
        except Exception as error:  # a plugin's may be of any kind
            failed[_named(cell)] = reason(error)
    cost = _searches(wanted)
    notes = []
    if calls is not None and sum(cost.values()) > SEARCHED * calls:
        names = ", ".join(sorted({name for name, _ in cost}))
        notes.append(
            f"grids not searched, as that takes {sum(cost.values())} of the {calls} network calls: {names}; "
            "raise the limit to have them tried"
        )
        left_out |= {_named(cell): "its grid would have to be searched" for cell in wanted if cell.needs is not None}
        wanted = [cell for cell in wanted if cell.needs is None]
    else:
        wanted = train_missing.search_missing(wanted, out, tell)
    found: dict[tuple[int, str], list[Cell]] = {}
    for cell in wanted:
        if cell.plan is not None:
            found.setdefault((cell.nfe, cell.plan.key), []).append(cell)
        elif cell.obstacle is not None:
            (failed if cell.obstacle[0] == FAILED else left_out)[_named(cell)] = cell.obstacle[1]
    candidates = [
        Candidate(cells[0], cells[0].plan, tuple(each.solver for each in cells[1:]))
        for cells in found.values()
        if cells[0].plan is not None
    ]
    for nfe in budgets:
        if not any(each.nfe == nfe for each in candidates):
            reasons = [why for key, why in (failed | left_out).items() if key.startswith(f"{nfe} ")]
            why = reasons[0] if reasons else "none is asked for"
            raise UserError(asked=f"nfe={nfe}", wrong=f"no candidate: {why}", remedy="ask for other solvers or calls")
    return Field(candidates, failed, left_out, _searched(wanted, out), notes)


def _searched(wanted: Sequence[Cell], out: Path) -> int:
    """Return the network calls of the searches kept in the results folder, whose grids the cells have."""
    found: dict[Path, int] = {}
    for cell in wanted:
        place = cell.search.path if cell.search is not None else None
        if cell.search is not None and place is not None and place.is_relative_to(out):
            found[place] = max(found.get(place, 0), cell.search.calls)
    return sum(found.values())


def _named(cell: Cell) -> str:
    """Return a cell's name in the tables of those that take no part; as `Candidate.key`."""
    return f"{cell.nfe} {cell.solver}"


def _searches(wanted: Sequence[Cell]) -> dict[tuple[str, str], int]:
    """Return the network calls of each search that cells need, by name and parameters."""
    found: dict[tuple[str, str], int] = {}
    for cell in wanted:
        if cell.needs is not None:
            place = cell.needs.name, repr(sorted(cell.needs.given.items()))
            calls = search.cost(cell.needs.name, cell.needs.steps, cell.needs.given)
            found[place] = max(found.get(place, 0), calls)
    return found
