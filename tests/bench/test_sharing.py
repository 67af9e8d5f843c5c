"""Shared calls: as few as the prefix tree has, the same bytes as alone, and no cell's trouble is another's."""

import cProfile
import itertools
from types import SimpleNamespace

import pytest
import torch
import toys

import solverbench as sb
from solverbench.bench import estimates
from solverbench.bench import plan as planning
from solverbench.bench import run as runner
from solverbench.bench import work as jobs
from solverbench.bench.run_options import RunOptions
from solverbench.method import prefixes
from solverbench.method.tableau import Plan
from solverbench.sampling import endpoints, sample
from solverbench.store.folder import Store

CORE = ("euler", "dpm:order=2", "dpm:order=3", "unipc:order=3", "ipndm:order=4", "deis:order=4")
SOLVERS = ",".join(f"{name}:grid=polynomial" for name in CORE)
SMALL = {"samples": 40, "replicates": 1, "batch": 3, "workers": 1}


class Network:
    """The toy denoiser, counting calls."""

    def __init__(self, trouble=None):
        self.calls, self.trouble = 0, trouble

    def __call__(self, x, sigma):
        self.calls += 1
        if self.trouble is not None:
            self.trouble(x, sigma)
        return toys.denoise(x, sigma)


OWN = {"sampler": "euler", "sampler_nfe": 7}
"""The teacher's own sampler has no level but the first in common with four calls of the others."""


def plans(nfe, solvers=SOLVERS):
    teacher = toys.teacher(**OWN)
    return [sb.tableau(spec, nfe=nfe, teacher=teacher).plan_from_noise(teacher.schedule) for spec in solvers.split(",")]


def run(out, network, **options):
    asked = {"solvers": SOLVERS, "nfe": 4} | SMALL | options
    return runner.run(RunOptions(teachers=toys.teacher(network, **OWN), out=out, **asked))


@pytest.mark.parametrize(("nfe", "needed"), [(4, 12), (6, 25), (8, 37)])
def test_the_core_solvers_need_so_many_calls(nfe, needed):
    """As counted on public implementations of the same solvers."""
    tree = prefixes.grow(plans(nfe))
    assert (tree.asked, tree.needed) == (6 * nfe, needed)


def test_dpm_2_and_3_are_one_tableau_at_four_calls():
    assert [sorted(end.plans) for end in prefixes.grow(plans(4)).ends if len(end.plans) > 1] == [[1, 2]]
    assert all(len(end.plans) == 1 for end in prefixes.grow(plans(8)).ends)


def test_a_tree_holds_every_plan_as_it_is():
    asked = plans(5) + plans(3)
    tree = prefixes.grow(asked)
    for end in tree.ends:
        for place in end.plans:
            assert tuple(call.sigma for call in end.path) == asked[place].sigmas
            assert (*(call.row for call in end.path), end.row) == asked[place].rows
    assert sorted(itertools.chain.from_iterable(end.plans for end in tree.ends)) == list(range(len(asked)))


def test_plans_share_only_what_is_exactly_equal():
    a = Plan((80.0, 1.0), ((80.0,), (1.0, 0.9), (0.0, 0.1, 0.9)))
    scaled = Plan((80.0, 1.0), ((80.0062498,), (1.0, 0.9), (0.0, 0.1, 0.9)))  # a VP start at the same level
    nearly = Plan((80.0, 1.0), ((80.0,), (1.0, 0.900000000001), (0.0, 0.1, 0.9)))
    told = Plan((80.0, 1.00000000001), ((80.0,), (1.0, 0.9), (0.0, 0.1, 0.9)))
    longer = Plan((80.0, 1.0, 0.5), ((80.0,), (1.0, 0.9), (0.0, 0.1, 0.9), (0.0, 0.0, 0.1, 0.9)))
    assert prefixes.grow([a, scaled]).needed == 4
    assert prefixes.grow([a, nearly]).needed == 3
    assert prefixes.grow([a, told]).needed == 3
    assert prefixes.grow([a, longer]).needed == 3
    ending = Plan((80.0, 1.0), ((80.0,), (1.0, 0.9), (0.0, 0.0, 1.0)))
    tree = prefixes.grow([a, ending])
    assert (tree.needed, [end.plans for end in tree.ends]) == (2, [[0], [1]])


def test_bunches_hold_every_plan_once_and_keep_to_their_size():
    asked = plans(4) + plans(6)
    assert prefixes.bunches(asked, 10, 10_000) == [list(range(12))]
    cut = prefixes.bunches(asked, 10, 100)
    assert sorted(itertools.chain.from_iterable(cut)) == list(range(12))
    assert len(cut) > 1
    for bunch in cut:
        tree = prefixes.grow([asked[place] for place in bunch])
        assert 10 * tree.needed <= 100 or len(tree.ends) == 1
    few = prefixes.bunches(asked, 10, samples=2)
    assert sorted(itertools.chain.from_iterable(few)) == list(range(12))
    assert {len(prefixes.grow([asked[place] for place in bunch]).ends) for bunch in few} <= {1, 2}


def test_a_unit_holds_the_features_of_as_many_samples_as_fit_its_memory(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", Network())
    monkeypatch.setattr(jobs, "MEMORY", 4 * 5 * 4 * 2)  # of two samples: four images a block, five features
    made = [jobs.CellProgress(each.cell, Store.look(tmp_path / "none"), set()) for each in whole.cells]
    assert {len(unit.tree.ends) for unit in jobs.units(made)} <= {1, 2}
    run(tmp_path / "cut", Network())
    assert toys.files_of(tmp_path / "whole") == toys.files_of(tmp_path / "cut")


def test_half_of_the_calls_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(estimates, "paces", lambda *work: {})  # its probe makes calls, too
    together, alone = Network(), Network()
    run(tmp_path / "grid", together)
    for spec in SOLVERS.split(","):
        run(tmp_path / "alone", alone, solvers=spec)
    run(tmp_path / "reversed", Network(), solvers=",".join(reversed(SOLVERS.split(","))), workers=2)
    goal = 20 * 7  # ten blocks of two batches by the teacher's own sampler, seven calls
    assert (together.calls - goal, alone.calls - goal) == (20 * 12, 20 * 24)
    assert toys.files_of(tmp_path / "grid", pattern="cells/**/*.npz") != {}
    for other in ("alone", "reversed"):
        assert toys.files_of(tmp_path / "grid") == toys.files_of(tmp_path / other)


def test_a_second_solver_joins_what_is_stored(tmp_path):
    run(tmp_path / "later", Network(), solvers="euler:grid=polynomial")
    run(tmp_path / "later", Network())
    run(tmp_path / "once", Network())
    assert toys.files_of(tmp_path / "later") == toys.files_of(tmp_path / "once")


def test_cells_cut_into_other_units_give_the_same_bytes(tmp_path, monkeypatch):
    run(tmp_path / "whole", Network())
    monkeypatch.setattr(prefixes.bunches, "__defaults__", (20, None))
    run(tmp_path / "cut", Network())
    assert toys.files_of(tmp_path / "whole") == toys.files_of(tmp_path / "cut")


def test_solvers_with_and_without_threshold_share_nothing(tmp_path):
    both, apart = Network(), Network()
    specs = ["dpm:grid=polynomial", "dpm:grid=polynomial:threshold=true"]
    run(tmp_path / "both", both, solvers=",".join(specs))
    for spec in specs:
        run(tmp_path / "apart", apart, solvers=spec)
    assert both.calls == apart.calls
    assert toys.files_of(tmp_path / "both") == toys.files_of(tmp_path / "apart")


def test_the_work_of_a_plan_grows_in_proportion_to_its_solvers():
    """Counted in function calls; the shares of a first call that all solvers make took their square."""
    block, made = range(4), []
    for many in (20, 160):
        plans = [Plan((80.0, 1 + k / many), ((80.0,), (k / many, 1 - k / many), (0.0, 0.0, 1.0))) for k in range(many)]
        family = tuple(SimpleNamespace(cell=SimpleNamespace(plan=plan), goal_calls={block: 4}) for plan in plans)
        unit = jobs.Unit(family, block)
        assert sum(unit.shares()) == pytest.approx(unit.calls, rel=1e-12)
        profile = cProfile.Profile()
        profile.runcall(unit.shares)
        made.append(sum(each.callcount for each in profile.getstats()))
    assert made[1] < 10 * made[0]


def test_plan_tells_calls_asked_and_needed(tmp_path):
    planned = planning.plan(RunOptions(solvers=SOLVERS, nfe=4, teachers=toys.teacher(**OWN), out=tmp_path, **SMALL))
    assert (planned.asked, planned.needed) == (24, 12)
    assert planned.as_dict()["calls_needed"] == 12
    assert "per image: 12, as solvers share equal first calls; 24 if each cell ran alone" in planned.summary()
    assert sum(each.needed for each in planned.cells) == pytest.approx(40 * (12 + 7))
    assert sum(each.calls for each in planned.cells) == 40 * (24 + 7)


def test_costs_are_those_of_a_cell_alone(tmp_path):
    """A shared call counts in full for each cell that needs it, and how many are shared is told."""
    result = run(tmp_path, Network())
    shared = {each.cell.solver.split(":grid")[0]: each.total("shared_calls") for each in result.cells}
    assert shared["dpm:order=2"] == shared["dpm:order=3"] == 10 * 4
    assert all(count >= 10 for count in shared.values())
    for each in result.cells:
        assert 0 < each.total("denoiser_seconds") < each.total("seconds")


def test_an_error_in_a_call_reaches_exactly_the_cells_that_need_it(tmp_path):
    [euler, dpm] = plans(4, "euler:grid=polynomial,dpm:order=2:grid=polynomial")
    assert euler.rows[:2] == dpm.rows[:2]
    assert euler.rows[2] != dpm.rows[2]
    met = []

    def trouble(x, sigma):
        if float(sigma) == euler.sigmas[2]:
            met.append(sigma)
            if len(met) == 1:  # the first cell's own third call of the first batch
                raise ZeroDivisionError("a network's bug")

    pair = "euler:grid=polynomial,dpm:order=2:grid=polynomial"
    result = run(tmp_path, Network(trouble), solvers=pair)
    assert [each.status for each in result.cells] == ["failed", "done"]
    assert "a network's bug" in result.cells[0].reason
    run(tmp_path / "good", Network(), solvers="dpm:order=2:grid=polynomial")
    name = result.cells[1].cell.address
    assert (tmp_path / "cells" / name[:2] / name / "metrics.json").read_bytes() == (
        tmp_path / "good" / "cells" / name[:2] / name / "metrics.json"
    ).read_bytes()


def test_an_error_in_a_shared_call_fails_all_that_need_it_and_no_other(tmp_path):
    def trouble(x, sigma):
        if float(sigma) == first.sigmas[1]:
            raise ZeroDivisionError("a network's bug")

    [first, other] = plans(4, "euler:grid=polynomial,euler:grid=logsnr")
    assert first.sigmas[1] != other.sigmas[1]
    result = run(tmp_path, Network(trouble), solvers="euler:grid=polynomial,dpm:grid=polynomial,euler:grid=logsnr")
    assert [each.status for each in result.cells] == ["failed", "failed", "done"]
    mended = run(tmp_path, Network(), solvers="euler:grid=polynomial,dpm:grid=polynomial,euler:grid=logsnr")
    assert [each.status for each in mended.cells] == ["done", "done", "cached"]


def test_a_device_too_small_for_the_batch_makes_halves_and_says_so(tmp_path):
    """Memory runs out in the middle of the tree, after some samples were taken."""
    level = plans(4)[-1].sigmas[3]

    def trouble(x, sigma):
        if len(x) > 2 and float(sigma) == level:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    halved = run(tmp_path / "halved", Network(trouble))
    whole = run(tmp_path / "whole", Network())
    assert {each.status for each in halved.cells} == {"done"}
    assert {each.greatest("batch") for each in halved.cells} == {1}
    for a, b in zip(halved.cells, whole.cells, strict=True):
        for metric in a.measures:
            assert a.measures[metric].value == pytest.approx(b.measures[metric].value, rel=1e-5, abs=1e-7)


def test_a_device_too_small_for_one_image_fails_only_the_cells_that_need_the_call(tmp_path):
    level = plans(4, "euler:grid=logsnr")[0].sigmas[2]

    def trouble(x, sigma):
        if float(sigma) == level:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    result = run(tmp_path, Network(trouble), solvers="euler:grid=logsnr")
    assert [each.status for each in result.cells] == ["failed"]
    assert "memory is too small" in result.cells[0].reason


def test_a_cell_that_takes_too_long_is_a_failure_and_the_others_go_on(tmp_path, monkeypatch):
    level = plans(4, "euler:grid=logsnr")[0].sigmas[2]
    clock = {"now": 0.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])

    def trouble(x, sigma):
        clock["now"] += 5.0 if float(sigma) == level else 0.001

    solvers = "euler:grid=logsnr,euler:grid=polynomial"
    result = run(tmp_path, Network(trouble), solvers=solvers, timeout_cell=12.0)
    assert [each.status for each in result.cells] == ["failed", "done"]
    assert "took longer than the time limit of a cell" in result.cells[0].reason
    monkeypatch.undo()
    later = run(tmp_path, Network(), solvers=solvers)
    assert [each.status for each in later.cells] == ["done", "cached"]


def test_samples_of_a_tree_are_those_of_each_plan():
    """Nothing of a walk leaks from one branch into another."""
    teacher, asked = toys.teacher(**OWN), plans(5) + plans(4)
    tree = prefixes.grow(asked)

    def start(part):
        return lambda call, x, sigma: toys.denoise(x, sigma), sb.seeds.noise(part, toys.SHAPE)

    found = dict(sample.samples(tree, teacher, range(7, 12), start, lambda end: True, sample.BatchLimit(500)))
    for end, states in found.items():
        for place in end.plans:
            alone = sample.sample(asked[place], teacher, range(7, 12), nfe=asked[place].nfe)
            assert torch.equal(states, alone)


def test_every_image_is_compared_with_its_own(tmp_path):
    """Two batches a block, the second shorter; by the definition of the error, from samples of each plan alone."""
    result = run(tmp_path, Network(), solvers="euler:grid=polynomial,dpm:grid=polynomial")
    teacher, seeds = toys.teacher(**OWN), range(50_000, 50_040)
    goal = endpoints.endpoints(teacher, seeds, tmp_path / "own", batch=3)
    for cell, plan in zip(result.cells, plans(4, "euler:grid=polynomial,dpm:grid=polynomial"), strict=True):
        states = torch.cat([sample.sample(plan, teacher, range(k, k + 1), nfe=4) for k in seeds])
        error = (states.double() - goal.double()).square().mean().sqrt().item()
        assert cell.measures["rmse_teacher"].value == pytest.approx(error, rel=1e-6)
