"""How many images tell two solvers apart: the formula against simulation, and `plan --detect` on stored cells."""

import json
import math

import numpy as np
import pytest
import toys
from click.testing import CliRunner

import solverbench as sb
from solverbench.bench.pilot import detect
from solverbench.bench.pilot.stored import Pilot, of_report
from solverbench.cli.main import main
from solverbench.errors import UserError
from solverbench.metrics.intervals import images_needed, p_value, standard_error

SMALL = {"samples": 40, "replicates": 2, "nfe": "3,4", "workers": 1}


@pytest.mark.parametrize(("replicates", "level"), [(1, 0.05), (3, 0.05), (3, 0.05 / 45)])
def test_the_power_at_that_many_images_is_the_one_asked_for(replicates, level):
    """2000 runs of the jackknife's test at N images: a power of .8 shows as .77 to .83 (3.3 standard errors)."""
    spread, difference = 2.0, 0.1  # of one image, and the true difference
    images = 5000
    needed = images_needed(spread / images**0.5, images, difference, power=0.8, level=level, each=10**6)
    needed = images_needed(
        spread / images**0.5, images, difference, power=0.8, level=level, each=needed // replicates + 1
    )
    runs = math.ceil(needed / (needed // replicates + 1)) if replicates > 1 else 1
    dice = np.random.default_rng([replicates, round(1 / level)])
    size = needed / runs / 10  # images of a block: its mean has this error
    blocks = difference + spread / size**0.5 * dice.standard_normal((2000, runs, 10))
    left = (blocks.sum(2, keepdims=True) - blocks) / 9
    found = [
        p_value(own.mean(), standard_error(rest), 9 * runs) <= level for own, rest in zip(blocks, left, strict=True)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_many_images_need_the_normal_quantiles():
    """(1.95996 + 0.84162)^2 (error / difference)^2 images, within the little that Student's adds at 9000 degrees."""
    found = images_needed(1.0, 1, 0.01, power=0.8, each=1)
    assert found == pytest.approx(78489, rel=1e-3)


@pytest.mark.parametrize("text", ["5%", "0.05", " 5 %", 0.05])
def test_a_difference_is_read_as_percent_or_fraction(text):
    assert detect.parse(str(text)) == pytest.approx(0.05)


@pytest.mark.parametrize("text", ["5x", "0", "-5%", "200%", "nan", ""])
def test_no_other_difference_is(text):
    with pytest.raises(UserError, match=r"write 5% or 0\.05"):
        detect.parse(text)


def pilot(solver, value, noise, *, over="same", nfe=4, n=100):
    """A cell of one replicate, whose leave-one-outs differ from the others' by `noise`."""
    left = value + noise * np.linspace(-1, 1, 10)[None]
    return Pilot("toy", solver, nfe, "rmse_teacher", value, left, n, over)


def test_neighbours_in_rank_are_judged_and_the_hardest_is_named():
    cells = [pilot("a", 1.0, 0.0), pilot("b", 1.1, 0.01), pilot("c", 3.0, 0.2), pilot("d", 9.0, 0.2, over="others")]
    found = detect.detection(cells, {("toy", 4): 3}, 0.05, 0.8, lambda nfe: "")
    [row] = found.rows
    assert (row.pairs, row.a, row.b, found.comparisons) == (2, "b", "c", 3)
    error = standard_error(cells[1].left - cells[2].left)
    assert row.most == images_needed(error / 2.05, 100, 0.05, power=0.8, each=100)
    assert row.corrected == images_needed(error / 2.05, 100, 0.05, power=0.8, level=0.05 / 3, each=100)
    assert row.typical <= row.most < row.corrected
    assert row.replicates == math.ceil(row.corrected / 100)


def test_trainings_of_one_solver_are_one():
    cells = [pilot("gs:training=0", 1.0, 0.0), pilot("gs:training=1", 1.2, 0.3), pilot("dpm", 2.0, 0.1)]
    [row] = detect.detection(cells, {("toy", 4): 2}, 0.05, 0.8, lambda nfe: "").rows
    assert (row.pairs, row.a, row.b) == (1, "gs:training=0", "dpm")


def test_a_place_without_two_cells_asks_for_a_pilot():
    found = detect.detection(
        [pilot("a", 1.0, 0.0)], {("toy", 4): 2, ("toy", 5): 2}, 0.05, 0.8, lambda nfe: f"run {nfe}"
    )
    assert found.rows == ()
    assert found.lines() == [
        "no two stored solvers at NFE 4, 5 on toy: run a pilot first, then plan again:", "    run [4, 5]",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("detect")
    sb.run(solvers="euler,dpm,unipc", teachers=toys.teacher(), out=out, **SMALL)
    return out


def test_a_plan_takes_the_variances_of_stored_cells_on_other_seeds(ran):
    asked = {"solvers": "euler,dpm", "teachers": toys.teacher(), "nfe": "3,4,5", "out": ran}
    found = sb.plan(**asked, samples=1000, detect="5%").detection
    assert {(row.nfe, row.metric) for row in found.rows} >= {(3, "rmse_teacher"), (4, "rmse_teacher")}
    assert {(row.pilot, row.pairs) for row in found.rows} == {(80, 1)}
    assert {row.samples for row in found.rows if row.metric == "frechet_data"} == {1000}
    assert found.lacking == (("toy", 5),)
    assert "--nfe 5" in found.command
    assert "--samples 1000 --replicates 3" in found.command
    twice = sb.plan(**asked, samples=1000, detect=0.1).detection
    for one, other in zip(found.rows, twice.rows, strict=True):
        assert one.most >= 3 * other.most  # four times, but for degrees of freedom
    assert sb.plan(**asked).detection is None


def test_the_command_reads_a_finished_run(ran):
    [report] = (ran / "reports").iterdir()
    done = CliRunner().invoke(main, ["plan", "--detect", "5%", "--pilot", report.name, "--out", str(ran), "--json"])
    assert done.exit_code == 0, done.output
    said = "if they differed by 5 % of the metric, with power 0.8 at a two-sided level of 0.05"
    assert said in done.output
    told = json.loads(done.output.splitlines()[-1])["detect"]
    assert {(row["nfe"], row["pairs"]) for row in told["rows"]} == {(3, 2), (4, 2)}
    assert told["comparisons"] == 2 * 3
    assert len(of_report(report)) == len(sb.load_results(report).frame)
    more = CliRunner().invoke(
        main, ["plan", "--detect", "5%", "--power", "0.95", "--pilot", report.name, "--out", str(ran), "--json"]
    )
    rows = zip(told["rows"], json.loads(more.output.splitlines()[-1])["detect"]["rows"], strict=True)
    assert all(one["most"] < other["most"] for one, other in rows)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--detect", "5x"], "detect 5x: no relative difference above 0 and up to 100 %; write 5% or 0.05"),
        (["--detect", "5%", "--power", "1"], "power 1.0: not between 0.5 and 1; give one such as 0.8"),
        (["--pilot", "x"], "--pilot x: given without --detect; add --detect 5%"),
        (["--detect", "5%", "--pilot", "nothing"], "run 'nothing': no report, and"),
    ],
)
def test_mistakes_are_one_line(given, said, tmp_path):
    done = CliRunner().invoke(main, ["plan", *given, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert said in done.output


def test_a_damaged_report_is_named(ran, tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    (tmp_path / "results.csv").write_text("teacher,solver\n")
    (tmp_path / "cells.json").write_text("[")
    with pytest.raises(UserError, match=r"results.csv or cells.json can't be read"):
        of_report(tmp_path)
