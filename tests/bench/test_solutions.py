"""Exact solutions of a teacher's ODE: against closed forms, kept in the store, and as a metric of cells."""

import json
import math

import numpy as np
import pytest
import torch
import toys

import solverbench as sb
from solverbench import registries, seeds
from solverbench.bench import plan as planning
from solverbench.bench import resolve
from solverbench.bench import run as runner
from solverbench.bench import work as jobs
from solverbench.bench.block import UnitTask
from solverbench.bench.bundle import selection
from solverbench.bench.progress import Silent
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.errors import RecordError, UserError
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.sampling.sample import Cancel, SampleError
from solverbench.store.folder import Store

VARIANCE = 0.3
SMALL = {"solvers": "euler", "nfe": 3, "samples": 40, "replicates": 2}
CHOSEN = range(50_000, 50_004)


def gaussian(x, sigma):
    """The denoiser of N(0, VARIANCE): its ODE takes x at s0 to x sqrt((v + s^2)/(v + s0^2)) at s."""
    return VARIANCE / (VARIANCE + sigma**2) * x


def carried(x, start, end):
    return x * math.sqrt((VARIANCE + end**2) / (VARIANCE + start**2))


def single(**changes):
    """A teacher of one Gaussian, with few calls; the error of its own samples is nobody's concern here."""
    options = {"name": "gaussian", "shape": (1, 1, 2), "identity": "gaussian", "double": gaussian, "exact": True}
    sampler = {"sampler": "heun", "sampler_nfe": 8, "sampler_error": toys.converged("heun", 8)}
    return sb.Teacher(gaussian, **(options | sampler | changes))


class Counting:
    def __init__(self, denoise=gaussian):
        self.calls, self.denoise = 0, denoise

    def __call__(self, x, sigma):
        self.calls += 1
        return self.denoise(x, sigma)


def run(out, teacher=None, *, progress=None, **options):
    asked = RunOptions(**({"teachers": teacher or single(), "out": out} | SMALL | options))
    return runner.run(asked, progress=progress)


@pytest.mark.parametrize("tolerance", [1e-5, 1e-8, 1e-11])
def test_a_gaussians_solution_is_its_closed_form(tolerance):
    x = torch.linspace(-160, 160, 9, dtype=torch.float64)[:, None]
    found = solutions.solve(gaussian, x, 80.0, 0.002, tolerance)
    worst = (found - carried(x, 80.0, 0.002)).abs().max()
    assert worst < 30 * tolerance
    assert worst > tolerance / 1e5


def test_it_ends_at_the_last_level_and_looks_no_further():
    seen = []

    def watched(x, sigma):
        assert (sigma.dtype, sigma.shape, sigma.device.type) == (torch.float64, (), "cpu")
        seen.append(float(sigma))
        return gaussian(x, sigma)

    solutions.solve(watched, torch.ones(2, 1, dtype=torch.float64), 80.0, 0.5, 1e-6)
    assert max(seen) == pytest.approx(80.0)
    assert min(seen) == pytest.approx(0.5)


def test_no_image_hides_behind_the_others():
    """One stiff image among 500 at rest: the steps follow it."""

    def denoise(x, sigma):
        return torch.where(torch.arange(len(x))[:, None] == 7, gaussian(x, sigma), x)

    x = torch.full((500, 1), 80.0, dtype=torch.float64)
    error = solutions.solve(denoise, x, 80.0, 0.002, 1e-7)[7] - carried(x[7], 80.0, 0.002)
    assert error.abs() < 1e-6


@pytest.mark.parametrize("broken", [lambda x, sigma: x * float("nan"), lambda x, sigma: x + torch.randn_like(x)])
def test_a_network_without_a_solution_is_a_reason(broken, monkeypatch):
    monkeypatch.setattr(solutions, "MAX_STEPS", 500)
    with pytest.raises(SampleError, match="the teacher's ODE at tolerance 1e-06: no solution was found"):
        solutions.solve(broken, torch.ones(2, 3, dtype=torch.float64), 80.0, 0.002, 1e-6)


def test_a_piece_starts_from_the_solvers_noise_and_is_made_once(tmp_path):
    counting = Counting()
    first = solutions.piece(single(double=counting), CHOSEN, tmp_path)
    noise = seeds.noise(CHOSEN, (1, 1, 2)).double()
    torch.testing.assert_close(first, carried(80.0 * noise, 80.0, 0.002), rtol=0, atol=1e-7)
    made = counting.calls
    assert made > 50
    again = solutions.piece(single(double=counting), CHOSEN, tmp_path)
    assert torch.equal(first, again)
    assert counting.calls == made


@pytest.mark.parametrize(
    "change",
    [{"identity": "b"}, {"double": None}, {"schedule": sb.EDM(0.002, 70.0)}, {"schedule": sb.EDM(0.01, 80.0)}],
)
def test_what_changes_the_solution_changes_its_place(tmp_path, change):
    places = {solutions.location(teacher, CHOSEN, tmp_path) for teacher in (single(), single(**change))}
    assert len(places) == 2


def test_another_tolerance_has_other_files(tmp_path):
    loose = solutions.piece(single(), CHOSEN, tmp_path, tolerance=1e-3)
    tight = solutions.piece(single(), CHOSEN, tmp_path, tolerance=1e-9)
    assert len(list(tmp_path.glob("solutions/*/50000-50003.npz"))) == 2
    assert not torch.equal(loose, tight)


def test_a_network_that_only_runs_in_float32_is_solved_loosely_and_says_so(tmp_path):
    dtypes = set()

    def denoise(x, sigma):
        dtypes.add(x.dtype)
        return gaussian(x, sigma)

    teacher = sb.Teacher(denoise, "gaussian", (1, 1, 2), identity="gaussian")
    found = solutions.piece(teacher, CHOSEN, tmp_path)
    assert dtypes == {torch.float32}
    assert found.dtype == torch.float64
    assert solutions.key(teacher)["network"] == "float32"
    assert solutions.key(teacher)["tolerance"] == solutions.ROUGH > solutions.TOLERANCE
    exact = carried(80.0 * seeds.noise(CHOSEN, (1, 1, 2)).double(), 80.0, 0.002)
    assert (found - exact).abs().max() < 1e-4


def test_a_foreign_solution_is_refused_and_a_damaged_one_made_again(tmp_path):
    solutions.piece(single(), CHOSEN, tmp_path)
    path = solutions.location(single(), CHOSEN, tmp_path)
    path.rename(path.with_name("50000-50001.npz"))
    with pytest.raises(RecordError, match="holds images"):
        solutions.piece(single(), range(50_000, 50_002), tmp_path)
    other = path.with_name("50000-50001.npz")
    other.write_bytes(b"")
    told = []
    found = solutions.piece(single(), range(50_000, 50_002), tmp_path, say=told.append)
    assert told == [
        f"{other}: damaged, its checksum doesn't match its content; set aside as *.damaged and computed again"
    ]
    assert torch.equal(found, solutions.piece(single(), range(50_000, 50_002), tmp_path / "fresh"))


def test_the_digits_network_in_float64_is_the_same_network():
    teacher = sb.load_teacher("digits")
    x = seeds.noise(range(20), teacher.shape)
    sigma = torch.tensor(0.7, dtype=torch.float64)
    exact = teacher.double(x.double(), sigma)
    torch.testing.assert_close(teacher.denoise(x, sigma).double(), exact, rtol=0, atol=1e-5)
    # Differences over 1e-6 and 2e-6 agree, which float32's rounding, 1e-7 of each image, would not let them.
    near, far = ((teacher.double(x.double() * (1 + h), sigma) - exact) / h for h in (1e-6, 2e-6))
    torch.testing.assert_close(near, far, rtol=0, atol=1e-3)
    assert teacher.denoise(x, sigma).dtype == torch.float32


@pytest.mark.parametrize("name", ["digits", "mixture"])
def test_the_shipped_teachers_solutions_have_converged(tmp_path, name):
    teacher = sb.load_teacher(name)
    assert teacher.double is not None
    found = solutions.piece(teacher, CHOSEN, tmp_path)
    tighter = solutions.piece(teacher, CHOSEN, tmp_path, tolerance=1e-10)
    assert (found - tighter).abs().max() < 1e-6


def test_the_metric_is_the_error_of_the_first_images_of_each_block(tmp_path):
    result = run(tmp_path, samples=2000, exact=True)
    [outcome] = result.cells
    measured = outcome.measures["rmse_exact"]
    plan = sb.tableau("euler", nfe=3, teacher=single()).plan(80.0)
    expected = []
    for replicate in (range(50_000, 52_000), range(52_000, 54_000)):
        noise = torch.cat([seeds.noise(replicate[begin : begin + 100], (1, 1, 2)) for begin in range(0, 2000, 200)])
        gap = sb.execute(plan, gaussian, noise).double() - carried(80.0 * noise.double(), 80.0, 0.002)
        expected.append(gap.square().mean().sqrt().item())
    assert measured.replicates == pytest.approx(expected, rel=1e-5)
    assert (measured.n, measured.leave_one_out.shape) == (1000, (2, 10))
    assert measured.interval[0] < measured.value < measured.interval[1]


def test_its_rows_and_record_carry_their_own_n(tmp_path):
    result = run(tmp_path, samples=2000)
    counts = dict(zip(result.frame.metric, result.frame.n, strict=True))
    assert counts == {"rmse_exact": 1000, "rmse_teacher": 2000}
    record = json.loads((result.folder / "bundle.json").read_text())
    assert record["metrics"]["rmse_exact"]["label"] == (
        "RMSE to the exact solution of the teacher's ODE (pixels in [-1, 1])"
    )
    said = record["protocol"]["exact solution on gaussian"]
    assert "tolerance 1e-08" in said
    assert "n=1000 a replicate" in said
    assert "to the exact solution: 1000" in record["protocol"]["interval"]


@pytest.mark.usefixtures("loose")
def test_a_cell_that_cannot_run_has_the_row_without_a_value(tmp_path):
    frame = run(tmp_path, solvers="heun,euler").frame
    frame = frame[frame.solver == "heun"]
    assert frame.metric.tolist() == ["rmse_exact", "rmse_teacher"]
    assert frame.value.isna().all()
    assert frame.n.tolist() == [40, 40]


@pytest.mark.usefixtures("loose")
@pytest.mark.parametrize(
    ("teacher", "asked", "measured"),
    [(True, None, True), (True, False, False), (False, None, False), (False, True, True)],
)
def test_it_is_measured_where_it_is_cheap_or_asked_for(tmp_path, teacher, asked, measured):
    result = run(tmp_path, single(exact=teacher), exact=asked)
    assert ("rmse_exact" in result.cells[0].measures) is measured
    assert (tmp_path / "solutions").exists() is measured
    assert ("exact" in result.cells[0].cell.key) is measured
    assert ("--exact" in json.loads((result.folder / "bundle.json").read_text())["command"]) is (asked is True)


def test_without_it_a_cell_is_what_it_was_before_there_was_such_a_metric(tmp_path):
    """Key and stored arrays of a default cell: nothing new, so that older stores stay valid."""
    result = run(tmp_path, toys.teacher())
    assert set(result.cells[0].cell.key) == {
        *("format", "solver", "schedule", "teacher", "shape", "sampler", "batch", "threads", "dtype", "device"),
        *("seeds", "samples", "block", "paired", "evaluation"),
    }
    with np.load(next(tmp_path.glob("cells/*/*/blocks/*.npz"))) as block:
        assert set(block.files) == {"errors", "images", "nfe", "n", "total", "outer", "statistics"}


@pytest.mark.usefixtures("loose")
def test_the_key_names_tolerance_and_count(tmp_path, monkeypatch):
    [first] = run(tmp_path).cells
    assert first.cell.key["exact"] == {"n": 40, **solutions.key(single())}
    monkeypatch.setattr(solutions, "TOLERANCE", 1e-6)
    [other] = run(tmp_path).cells
    assert (other.status, other.cell.address != first.cell.address) == ("done", True)
    assert len(list(tmp_path.glob("solutions/*"))) == 2


@pytest.mark.usefixtures("loose")
def test_a_second_solver_finds_the_solutions_and_a_second_run_needs_nothing(tmp_path):
    counting = Counting()
    run(tmp_path, single(double=counting))
    made = counting.calls
    assert made > 0
    run(tmp_path, single(double=counting), solvers="euler,dpm")
    assert counting.calls == made
    for path in tmp_path.glob("solutions/*/*"):
        path.unlink()
    assert [each.status for each in run(tmp_path, single(double=counting)).cells] == ["cached"]
    assert counting.calls == made


@pytest.mark.usefixtures("loose")
def test_an_interrupted_run_goes_on_to_the_same_bytes(tmp_path):
    class Impatient(Silent):
        def advance(self, cell, images, calls):
            if images:  # not while the reference is measured
                raise KeyboardInterrupt

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", workers=1, progress=Impatient())
    kept = len(list(tmp_path.glob("broken/solutions/*/*.npz")))
    assert 0 < kept < 20
    run(tmp_path / "broken", workers=3)
    assert toys.files_of(tmp_path / "whole") == toys.files_of(tmp_path / "broken")


@pytest.mark.usefixtures("loose")
def test_a_solve_that_fails_is_the_cells_reason(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(solutions, "MAX_STEPS", 3)
        [outcome] = run(tmp_path).cells
    assert outcome.status == "failed"
    assert "no solution was found" in outcome.reason
    assert [each.status for each in run(tmp_path).cells] == ["done"]


@pytest.mark.usefixtures("loose")
def test_the_plan_counts_solutions_once(tmp_path):
    options = {"teachers": single(), "out": tmp_path} | SMALL
    costs = [each.calls for each in planning.plan(RunOptions(**(options | {"solvers": "euler,dpm"}))).cells]
    assert costs == [80 * (3 + 8 + solutions.CALLS), 80 * 3]
    run(tmp_path)
    assert [each.calls for each in planning.plan(RunOptions(**(options | {"solvers": "dpm"}))).cells] == [80 * 3]


@pytest.mark.usefixtures("loose")
def test_cells_with_it_are_paired_over_the_same_solutions(tmp_path):
    from solverbench.bench.outcome import paired

    one, other = run(tmp_path, solvers="euler,dpm").cells
    difference, low, high = paired(one, other, "rmse_exact")
    assert low < difference < high
    [loose] = run(tmp_path / "b", single(double=None)).cells
    with pytest.raises(UserError, match="not paired"):
        paired(one, loose, "rmse_exact")


@pytest.mark.usefixtures("loose")
def test_the_selection_names_it_only_when_it_is_asked_for(tmp_path):
    names = {exact: run(tmp_path, exact=exact).folder.name for exact in (None, True, False)}
    assert len(set(names.values())) == 3
    asked = RunOptions(samples=40, replicates=2)
    assert asked.exact is None
    assert selection.name(run(tmp_path).cells, Protocol.of(asked).settle(asked)) == names[None]


CLASSICAL = [name for name in registries.solvers if not sb.make(name).learned]


@pytest.fixture(scope="module")
def exact_mixture():
    """100 noises and the mixture's solutions from them."""
    teacher = sb.load_teacher("mixture")
    noise = seeds.noise(range(50_000, 50_100), teacher.shape)
    return teacher, noise, solutions.solve(teacher.double, 80.0 * noise.double(), 80.0, 0.002, 1e-8)


@pytest.mark.parametrize("solver", CLASSICAL)
def test_the_error_to_the_exact_solution_falls_with_the_calls(exact_mixture, solver):
    """At 64 calls it is below that at 8, 16 and 32, and small; `pytest -s` prints the table.

    A solver that can't spend such a number takes the nearest that it can.
    """
    teacher, noise, exact = exact_mixture
    errors = {}
    for nfe in (8, 16, 32, 64):
        try:
            tableau = sb.tableau(solver, nfe=nfe, teacher=teacher)
        except sb.BudgetError as error:
            tableau = sb.tableau(solver, nfe=max(error.near), teacher=teacher)
        plan = tableau.plan(teacher.schedule.prior_scale)
        errors[nfe] = (sb.execute(plan, teacher.denoise, noise).double() - exact).square().mean().sqrt().item()
    print(f"{solver:10}", "  ".join(f"{nfe}: {error:.2e}" for nfe, error in errors.items()))
    assert errors[64] < min(errors[8], errors[16], errors[32])
    assert errors[64] < (0.1 if solver == "heunpp2" else 0.05)  # first order, and three calls a step


def test_the_teachers_calls_are_told_when_they_are_made(tmp_path):
    told = []
    teacher = single()
    plan = endpoints.sampler_plan(teacher)
    for _ in range(2):  # the second time they are stored
        endpoints.piece(teacher, plan, CHOSEN, tmp_path, batch=len(CHOSEN) - 1, told=told.append)
        solutions.piece(teacher, CHOSEN, tmp_path, told=told.append)
    assert told[:2] == [8 * (len(CHOSEN) - 1), 8]
    assert len(told) > 5, "a solution of hundreds of calls tells its progress"
    assert min(told) > 0
    assert sum(told[2:]) == solutions.CALLS * len(CHOSEN)
    options = RunOptions(teachers=single(), out=tmp_path, **SMALL)
    [cell] = resolve.resolve(options, Protocol.of(options))[:1]
    told.clear()
    UnitTask([cell], cell.protocol.blocks[0], tmp_path / "new", Cancel(), told=lambda *each: told.append(each))()
    own, exact = ([sum(each[i] for each in told if each[3] == kind) for i in (1, 2)] for kind in ("own", "exact"))
    pairs, solves = cell.protocol.pairs(cell.protocol.blocks[0]), cell.protocol.solves(cell.protocol.blocks[0])
    assert own == [0, 8 * len(pairs)]
    assert exact == [0, solutions.CALLS * len(solves)]
    assert all(seconds >= 0 for *_, seconds in told)
    whole = jobs.CellProgress(cell, Store.look(tmp_path / "none"), set())
    [unit] = [unit for unit in jobs.units([whole]) if unit.block == cell.protocol.blocks[0]]
    kinds = dict.fromkeys(unit.phases, 0)
    for _, _, calls, kind, _ in told:
        kinds[kind] += calls
    assert kinds == unit.phases  # what is told adds up to what the time estimate expects
    assert sum(kinds.values()) == unit.calls
