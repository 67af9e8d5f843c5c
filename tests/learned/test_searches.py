"""Grids that are searched on a teacher: the algorithms against brute force, and their place in runs and keys."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import solverbench as sb
from solverbench import registries, reports
from solverbench.bench import plan as planning
from solverbench.bench import resolve
from solverbench.bench.progress import Silent
from solverbench.bench.protocol import Protocol
from solverbench.bench.run import run
from solverbench.bench.run_options import RunOptions
from solverbench.cli.progress import display
from solverbench.cli.terminal import Amount
from solverbench.errors import GridError, NeedsSearchError, RecordError, UserError
from solverbench.learned.searches import dmn, files, gits, oss, pilot, search
from solverbench.learned.training.checkpoint import check_trained
from solverbench.method import grids
from solverbench.method.schedules import Searched
from solverbench.method.tracing import own_grid, trace

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")

GIVEN = {"candidates": 9, "warmup": 6, "pilot": "ipndm", "cost": "l2", "discount": 1.0}
CHEAP = "grid=gits:candidates=9:warmup=6"
CIFAR = [80, 10.9836, 3.8811, 1.5840, 0.5666, 0.1698, 0.0020]
"""Levels that GITS's public README gives for CIFAR-10, iPNDM, 6 steps."""


@pytest.fixture(scope="module")
def mixture() -> sb.Teacher:
    return sb.load_teacher("mixture")


def batches(teacher: sb.Teacher, *, candidates: int = 9, warmup: int = 6, pilot_name: str = "euler"):
    levels = pilot.candidates(teacher.schedule, candidates)
    return list(pilot.trajectories(teacher, levels, pilot_name, pilot.SEEDS[:warmup], lambda calls: None))


def all_paths(count: int, steps: int) -> list[list[int]]:
    return [[0, *inner, count] for inner in itertools.combinations(range(1, count), steps - 1)]


@pytest.mark.parametrize("cost", ["l2", "l1", "dev"])
@pytest.mark.parametrize("discount", [1.0, 1.15])
def test_gits_finds_the_cheapest_of_all_paths(mixture, cost, discount):
    table = sum(gits.costs(each, cost) for each in batches(mixture))
    found = gits.paths(table, 8, discount)
    for steps, path in enumerate(found, 1):
        every = {
            tuple(p): sum(discount**k * float(table[i, j]) for k, (i, j) in enumerate(itertools.pairwise(p)))
            for p in all_paths(8, steps)
        }
        assert every[tuple(path)] == pytest.approx(min(every.values()), rel=1e-12)
    assert found[0] == [0, 8]
    assert found[7] == list(range(9))


def test_a_step_of_gits_costs_its_distance_to_the_trajectory(mixture):
    [each] = batches(mixture)
    i, j = 2, 5
    landed = each.states[i] + float(each.levels[j] - each.levels[i]) * each.slopes[i]
    distance = (landed - each.states[j]).double().norm(dim=1).sum()
    assert float(gits.costs(each, "l2")[i, j]) == pytest.approx(float(distance), rel=1e-4)
    assert gits.costs(each, "l2")[5, 2] == torch.inf


def test_on_straight_trajectories_every_step_is_free(mixture):
    constant = torch.full((1, 8, 8), 0.25)
    straight = replace(mixture, denoise=lambda x, sigma: constant.expand_as(x))
    [each] = batches(straight)
    for cost in ("dev", "l2", "l1"):
        table = gits.costs(each, cost)
        assert table[table.isfinite()].abs().max() < 1e-3 * float(each.states[0].norm())


def test_the_analytic_first_step_has_its_own_cost(mixture):
    [each] = batches(mixture)
    usual, analytic = gits.costs(each, "l2"), gits.costs(each, "l2", afs=True)
    assert torch.equal(usual[1:], analytic[1:])
    slope = each.states[0] / float((1 + each.levels[0] ** 2).sqrt())
    landed = each.states[0] + float(each.levels[3] - each.levels[0]) * slope
    assert float(analytic[0, 3]) == pytest.approx(float((landed - each.states[3]).norm(dim=1).sum()), rel=1e-4)


def test_the_public_levels_are_among_the_candidates():
    candidates = pilot.candidates(sb.EDM(), 61).sigmas
    for level in CIFAR:
        assert ((candidates - level).abs() / level).min() < 6e-3 if level < 0.01 else 1e-4


def step(each: pilot.Trajectories, x: torch.Tensor, i: int, j: int) -> torch.Tensor:
    slope = (x - each.denoise(x, float(each.levels[i]))) / float(each.levels[i])
    return x + float(each.levels[j] - each.levels[i]) * slope


def distance(each: pilot.Trajectories, path: list[int]) -> float:
    x = each.states[0]
    for i, j in itertools.pairwise(path):
        x = step(each, x, i, j)
    return float((x - each.states[-1]).double().square().sum())


def test_oss_against_brute_force(mixture):
    [each] = batches(mixture, candidates=7)
    found = oss.paths([each], 6)
    assert found[0] == [0, 6]
    assert found[5] == list(range(7))
    least = {steps: min(distance(each, path) for path in all_paths(6, steps)) for steps in (2, 3)}
    assert distance(each, found[1]) == pytest.approx(least[2], rel=1e-4)
    assert distance(each, found[2]) >= least[3] * (1 - 1e-4)  # it keeps one state per level, so it may miss the best
    assert found[1] == oss.paths([each], 2)[1]


def test_searches_spend_what_is_told(mixture, tmp_path):
    for name, given in (("gits", GIVEN), ("oss", {"candidates": 9, "warmup": 6, "pilot": "euler"})):
        calls = 0

        def counted(x, sigma):
            nonlocal calls
            calls += len(x)
            return mixture.denoise(x, sigma)

        found = search.made(name, 4, given, replace(mixture, denoise=counted), tmp_path)
        assert calls == found.calls == search.cost(name, 4, given)
        assert found.seeds == range(10_000_000, 10_000_006)
        assert len(found.levels) == 5


def test_dmn_weights_are_those_of_the_exponential_adams_method():
    sigmas = torch.tensor([80, 20, 6, 2, 0.6, 0.1, 0.002], dtype=torch.float64)
    made = dmn.polynomial(sigmas)
    assert float(made.sum()) == pytest.approx(1 - 0.002 / 80, rel=1e-12)  # constant data
    assert not made.triu(1).any()
    adams = sb.tableau("adams:predictor=3", grid=sigmas.tolist(), nfe=6)
    assert torch.allclose(made.sum(0), adams.weights[-1, 1:], rtol=1e-9, atol=1e-12)
    assert torch.allclose(made, dmn.of_tableau(adams.weights, adams.levels), rtol=1e-9, atol=1e-12)


def test_dmn_lowers_its_bound_and_keeps_the_ends():
    schedule = sb.EDM()
    for steps in (3, 4):
        levels = dmn.levels(schedule, steps)
        assert levels[[0, -1]].tolist() == pytest.approx([80, 0.002])
        uniform = sb.make("dpm:grid=logsnr").grid(schedule, steps).sigmas

        def bound(sigmas: torch.Tensor) -> float:
            return float(dmn.bound(dmn.polynomial(sigmas), dmn.errors(schedule, sigmas[:-1], latent=False)))

        assert bound(levels) < 0.9 * bound(uniform)
        for k in range(1, steps):
            for factor in (0.97, 1.03):
                moved = levels.clone()
                moved[k] *= factor
                assert bound(moved) >= bound(levels) * (1 - 1e-3)
    assert dmn.levels(schedule, 1).tolist() == pytest.approx([80, 0.002])


def options(out: Path, **given) -> RunOptions:
    usual = {"nfe": "4", "teachers": "mixture", "samples": 20, "replicates": 1}
    return RunOptions(out=out, **{**usual, **given})


class Heard(Silent):
    """What a run says of its work."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


def test_a_run_says_which_grids_and_parameters_are_packaged(tmp_path):
    heard = Heard()
    specs = "ipndm:grid=gits,dpm:grid=gits,gas"
    result = run(options(tmp_path, solvers=specs, nfe="4,5", teachers="digits"), progress=heard)
    assert heard.lines == [
        "grid gits on digits, NFE 4-5: packaged",
        "parameters of gas on digits, NFE 4-5: packaged",
    ]
    assert set(result.frame.search_origin + result.frame.parameters_origin) == {"packaged"}
    for amount, expected in ((Amount.NORMAL, 1), (Amount.QUIET, 0)):
        with display(told := io.StringIO(), amount) as shown:
            shown.say(heard.lines[0])
        assert told.getvalue().count("packaged") == expected


def test_a_run_searches_once_and_keeps_what_it_found(tmp_path):
    specs = f"unipc,unipc:{CHEAP},ipndm:{CHEAP}:afs=true,unipc:grid=dmn:own=true,heun:{CHEAP}"
    planned = planning.plan(options(tmp_path, solvers=specs))
    waiting = {str(each.cell): each.reason for each in planned.cells if each.status == "to-search"}
    assert len(waiting) == 4
    assert waiting[f"unipc:{CHEAP} nfe=4 on mixture"] == "its grid is searched first, 48 network calls"
    assert waiting[f"heun:{CHEAP} nfe=4 on mixture"] == "its grid is searched first"  # by the same search
    first = run(options(tmp_path, solvers=specs))
    assert [each.status for each in first.cells] == ["done"] * 5
    rows = first.frame.drop_duplicates("solver").set_index("solver")
    assert rows.cost_training_teacher_calls[f"unipc:{CHEAP}"] == 8 * 6
    assert rows.cost_training_teacher_calls.isna()["unipc"]
    assert rows.cost_training_teacher_calls.iloc[3] == 0
    kept = {path.name: path.read_bytes() for path in (tmp_path / "trained" / "mixture").iterdir()}
    assert len(kept) == 3  # heun and unipc share one, with other numbers of steps
    heard = Heard()
    again = run(options(tmp_path, solvers=specs), progress=heard)
    assert [each.status for each in again.cells] == ["cached"] * 5
    where = tmp_path / "trained" / "mixture"
    assert sorted(heard.lines) == sorted(
        f"grid {path.stem.removeprefix('grid-')} on mixture, NFE 4: reused from {path}" for path in where.iterdir()
    )
    assert set(rows.search_origin) == {"", "run folder"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "trained" / "mixture").iterdir()} == kept
    for path in (tmp_path / "trained" / "mixture").iterdir():
        check_trained(path)


def test_a_report_of_searches_without_calls_has_no_figure_of_their_cost(tmp_path):
    result = run(options(tmp_path, solvers="euler:grid=dmn", nfe="3"))
    *_, report = reports.write(result.folder)
    assert "| euler:grid=dmn | 3 | packaged |  | 0 | 0 |" in report.read_text()
    assert not list(result.folder.rglob("figure-training*"))


def cell(out: Path, spec: str):
    protocol = Protocol.of(given := options(out, solvers=spec))
    return resolve.resolve(given, protocol)[0]


def test_a_key_has_the_levels_that_were_found(tmp_path, mixture):
    given = {"candidates": 9, "warmup": 6, "pilot": "ipndm", "cost": "dev", "discount": 1.15}
    found = search.made("gits", 4, given, mixture, tmp_path / "trained")
    asked = cell(tmp_path, f"unipc:{CHEAP}")
    assert asked.key["solver"]["grid"] == {
        "name": "gits", "version": 1, **{k: float(v) if isinstance(v, int) else v for k, v in given.items()},
        "levels": list(found.levels),
    }  # fmt: skip
    assert all(level == float(f"{level:.6g}") for level in found.levels)
    place = tmp_path / "trained/mixture" / files.file_name("gits", given)
    held = files.load(place)
    moved = replace(held.found[4], levels=(*found.levels[:2], found.levels[2] * 1.01, *found.levels[3:]))
    files.save(replace(held, found={**held.found, 4: moved}), place)
    assert cell(tmp_path, f"unipc:{CHEAP}").address != asked.address


def test_a_search_that_fails_fails_its_cell_alone(tmp_path):
    result = run(options(tmp_path, solvers="euler,unipc:grid=gits:candidates=4", nfe="2,5"))
    told = {(each.cell.solver, each.cell.nfe): (each.status, each.reason) for each in result.cells}
    assert told["euler", 5][0] == "done"
    assert told["unipc:grid=gits:candidates=4", 2][0] == "done"
    status, reason = told["unipc:grid=gits:candidates=4", 5]
    assert status == "failed"
    assert "only 4 levels to choose from; give candidates=6" in reason


def test_seeds_of_a_search_are_no_evaluation_seeds(tmp_path):
    specs = f"unipc:{CHEAP}"
    with pytest.raises(UserError, match="are search seeds of"):
        run(options(tmp_path, solvers=specs, seeds="10000000-10000019"))
    assert not (tmp_path / "trained").exists()  # told before the search
    run(options(tmp_path, solvers=specs))
    with pytest.raises(UserError, match="are search seeds of"):
        run(options(tmp_path, solvers=specs, seeds="10000000-10000019"))


@pytest.mark.parametrize("name", registries.searches)
def test_every_parameter_reaches_the_search(name):
    asked = []

    def searched(name, steps, given):
        asked.append(dict(given))
        return Searched((80.0, 2.0, 0.002), 0, 0.0, range(0))

    schedule = sb.EDM().with_search(searched)
    others = {
        "pilot": "dpm",
        "cost": "l1",
        "own": "true",
        "discount": "2",
        "candidates": "7",
        "warmup": "3",
        "rho": "3",
    }
    for key in grids.parameters(name):
        plain, other = (sb.make(f"euler:grid={name}{more}") for more in ("", f":{key}={others[key]}"))
        for solver in (plain, other):
            solver.grid(schedule, 2)
        assert asked[-2].get(key) != asked[-1][key]
        assert files.file_name(name, asked[-2]) != files.file_name(name, asked[-1])
    sb.make(f"euler:grid={name}:afs=true").grid(schedule, 2)
    assert asked[-1].get("afs", False) is (name == "gits")


def test_what_the_search_needs_is_said(tmp_path, mixture):
    with pytest.raises(GridError, match="searched on a teacher, and none is given; give a teacher"):
        sb.tableau("unipc:grid=gits", nfe=4)
    known = search.schedule(mixture, [tmp_path])
    with pytest.raises(NeedsSearchError, match="not searched yet on 'mixture'"):
        own_grid(sb.make(f"unipc:{CHEAP}"), known, 4)
    with pytest.raises(UserError, match="this grid has no cost; leave it out, or take the grid that has cost: gits"):
        sb.make("unipc:grid=oss:cost=l2")
    with pytest.raises(UserError, match="isn't one of its values"):
        sb.make("unipc:grid=gits:cost=l3")


def test_a_tableau_searches_with_a_line(tmp_path, mixture, capsys):
    first = sb.tableau(f"unipc:{CHEAP}", nfe=4, teacher=mixture, out=tmp_path)
    told = capsys.readouterr().err
    assert "searching it on mixture, 48 network calls" in told
    assert f"kept in {tmp_path}/trained/mixture/grid-gits-candidates=9-warmup=6.json" in told
    second = sb.tableau(f"unipc:{CHEAP}", nfe=4, teacher=mixture, out=tmp_path)
    assert first.equals(second)
    assert capsys.readouterr().err == ""
    levels = json.loads((tmp_path / "trained/mixture/grid-gits-candidates=9-warmup=6.json").read_text())["grids"]["4"]
    assert first.levels.tolist() == pytest.approx(levels["levels"], rel=1e-5)


def test_learned_solvers_start_from_searched_grids(tmp_path, mixture):
    known = search.searching(mixture, tmp_path).schedule
    grid = own_grid(sb.make(f"unipc:{CHEAP}"), known, 3)
    for spec in (f"s4s:{CHEAP}", f"s4s:form=single:order=2:{CHEAP}"):
        solver = sb.make(spec)
        ready = solver.with_parameters(solver.initial(known, 3))  # type: ignore[attr-defined]
        made = trace(ready, ready.grid(known, 3), check=False)
        assert made.levels.tolist() == pytest.approx(grid.sigmas.tolist(), rel=1e-6)


def test_a_damaged_file_is_told(tmp_path, mixture):
    path = tmp_path / "mixture" / files.file_name("gits", GIVEN)
    search.made("gits", 2, GIVEN, mixture, tmp_path)
    body = json.loads(path.read_text())
    body["grids"]["2"]["levels"][1] *= 1.5
    path.write_text(json.dumps(body))
    with pytest.raises(RecordError, match="checksum doesn't match"):
        check_trained(path)
    path.unlink()
    search.made("gits", 2, GIVEN, replace(mixture, identity="other"), tmp_path)
    with pytest.raises(RecordError, match="not on mixture"):
        list(files.find("gits", GIVEN, mixture, [tmp_path]))
