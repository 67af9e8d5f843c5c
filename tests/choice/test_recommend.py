"""The choice of a solver: the race drops what is beaten, resumes, keeps its limits, and is measured on fresh seeds."""

from __future__ import annotations

import csv
import json
import re
import runpy
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from click.testing import CliRunner

import solverbench as sb
from solverbench import seeds
from solverbench.bench.progress import Silent
from solverbench.choice import candidates, fresh, race
from solverbench.choice import choose as choosing
from solverbench.choice.choose import choose
from solverbench.cli.main import main
from solverbench.errors import UserError
from solverbench.learned import recipes
from solverbench.method.spec import make
from solverbench.sampling.sample import Cancelled, sample
from solverbench.teachers.convergence import warning

SOLVERS = "dpm,unipc,euler,heun,dpm:grid=polynomial,euler:grid=logsnr,ipndm,deis"


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few images, as the toy's differences are large."""
    monkeypatch.setattr(race, "MOST", 64)
    monkeypatch.setattr(fresh, "IMAGES", 40)


def teacher(denoise=toys.denoise, **changes):
    return toys.teacher(denoise, **{"sampler": "unipc:order=3", "sampler_nfe": 40} | changes)


class Heard(Silent):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    note = say


def test_what_is_above_the_leader_beyond_its_interval_is_beaten_and_of_the_rest_the_better_half_stays():
    dice = np.random.default_rng(0)
    shared = dice.random(16)
    level = [(shared + 0.01 * dice.random(16)).tolist() for _ in range(12)]
    found = race.beaten([*level, (shared + 1).tolist()], 13)
    assert found.pop(12) == "beaten"
    assert set(found.values()) == {"not in the first half"}
    assert len(found) == 5  # of 13 at most 7 stay
    means = np.mean(level, 1)
    assert max(means[[place for place in range(12) if place not in found]]) < min(means[list(found)])
    assert not race.beaten(level[:4], 4)  # never fewer than KEPT by halves


def test_the_best_of_level_candidates_is_seldom_beaten():
    """Ten candidates of one mean: the share of races whose first test drops the first one is far below LEVEL."""
    dropped = 0
    for trial in range(300):
        errors = np.random.default_rng(trial).chisquare(4, (10, 8))
        dropped += race.beaten(errors.tolist(), 10).get(0) == "beaten"
    assert dropped <= 300 * race.LEVEL


def test_equal_plans_are_one_candidate_and_broken_ones_are_listed_with_their_reason(tmp_path):
    class Broken(sb.Solver):
        name = "broken"

        def integrate(self, denoise, x, grid):
            raise ZeroDivisionError("a planted bug")

    sb.register(Broken)
    asked = "euler,ddim,dpm:order=1:grid=polynomial,heun,broken,dpm"
    found = candidates.gather(teacher(), [3, 4], tmp_path, Silent(), solvers=asked, calls=None)
    [euler] = [each for each in found.candidates if each.spec == "euler" and each.nfe == 4]
    assert euler.names == ("dpm:order=1:grid=polynomial",)
    assert {key.partition(" ")[2] for key in found.failed} == {"broken"}
    assert "ZeroDivisionError: a planted bug" in found.failed["4 broken"]
    assert list(found.left_out) == ["3 heun"]
    assert "each step costs 2 evaluations" in found.left_out["3 heun"]
    result = choose(teacher(), 4, out=tmp_path, solvers=asked)
    assert any(row["spec"] == "broken" and "planted" in row["state"] for row in result.candidates)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(race, "MOST", 64)
    patch.setattr(fresh, "IMAGES", 40)
    out = tmp_path_factory.mktemp("choice")
    found = choose(teacher(), "4,6", out=out, solvers=SOLVERS, exports=("json", "py", "k-diffusion", "sigmas"))
    patch.undo()
    return out, found


def test_the_pick_is_the_best_of_all_on_many_other_seeds(chosen):
    _, found = chosen
    for pick in found.picks:
        errors = {}
        goal = make("unipc:order=3")
        for spec in SOLVERS.split(","):
            images = [
                sample(
                    sb.trace(solver, solver.grid(teacher().schedule, solver.steps(nfe))).plan_from_noise(sb.EDM()),
                    teacher(), range(90_000, 90_300), nfe=nfe,
                )
                for solver, nfe in ((make(spec).on(sb.EDM()), pick.nfe), (goal, 40))
            ]  # fmt: skip
            errors[spec] = float((images[0] - images[1]).square().mean())
        assert pick.spec == min(errors, key=lambda spec: errors[spec])


def test_it_is_measured_on_fresh_seeds_beside_the_default_with_a_corrected_interval(chosen):
    _, found = chosen
    frame = sb.load_results(found.report).frame
    used = seeds.parse(frame["seeds"].iloc[0])
    assert used.start >= seeds.EVALUATION_START
    assert not set(race.SEEDS) & set(used)
    assert race.SEEDS.stop <= recipes.VALIDATION.stop
    for pick in found.picks:
        roles = {role: each for each in pick.comparisons for role in each.role.split(", ")}
        assert set(roles) == {"second", "third", "plain default"}
        assert len({each.spec for each in pick.comparisons}) == len(pick.comparisons)
        assert roles["plain default"].spec == "euler"
        rows = frame[(frame.nfe == pick.nfe) & (frame.metric == "rmse_teacher")].set_index("solver")["value"]
        assert roles["second"].difference == pytest.approx(rows[pick.spec] - rows[roles["second"].spec])
        assert roles["plain default"].verdict == ("ahead" if roles["plain default"].high < 0 else "level")
        assert pick.value == pytest.approx(rows[pick.spec])


def test_its_files_say_all_and_an_exported_pick_gives_the_images_of_sample(chosen):
    _, found = chosen
    rows = list(csv.DictReader((found.folder / "candidates.csv").read_text().splitlines()))
    names = [name for row in rows for name in (row["spec"], *row["same_as"].split())]
    assert sorted(names) == sorted(2 * SOLVERS.split(","))
    assert {row["state"].split(" after")[0] for row in rows} <= {
        "finalist", "beaten", "not in the first half", "left when the race ended",
    }  # fmt: skip
    told = json.loads((found.folder / "recommendation.json").read_text())
    assert told["pick"]["spec"] == found.pick.spec == found.picks[-1].spec
    for pick in found.picks:
        place = found.folder / f"nfe{pick.nfe}"
        names = {"solver.json", "solver.py", "k_diffusion_sampler.py", "sigmas.txt", "use.py"}
        assert {path.name for path in place.iterdir()} == names
        exported = runpy.run_path(str(place / "solver.py"))["sample"]
        noise = seeds.noise(range(70_000, 70_010), toys.SHAPE, "cpu")
        solver = make(pick.spec).on(sb.EDM())
        plan = sb.trace(solver, solver.grid(sb.EDM(), solver.steps(pick.nfe))).plan_from_noise(sb.EDM())
        own = sample(plan, teacher(), range(70_000, 70_010), nfe=pick.nfe)
        torch.testing.assert_close(exported(toys.denoise, noise), own, atol=1e-4, rtol=0)
        levels = [float(each) for each in (place / "sigmas.txt").read_text().split(",")]
        assert levels[-1] == 0
        assert levels[:-1] == sorted(levels[:-1], reverse=True)


def test_a_killed_race_resumes_and_gives_the_same_pick(chosen, tmp_path, monkeypatch):
    class Killed(Heard):
        def say(self, line):
            super().say(line)
            if line.startswith("round 2"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose(teacher(), "4,6", out=tmp_path, solvers=SOLVERS, tell=Killed())
    [path] = tmp_path.glob("recommendations/*/race.json")
    kept = json.loads(path.read_text())["rounds"]
    assert len(kept) == 2
    computed = []
    plain = race.Race.errors
    monkeypatch.setattr(race.Race, "errors", lambda *args: computed.append(args[2]) or plain(*args))
    found = choose(teacher(), "4,6", out=tmp_path, solvers=SOLVERS)
    assert json.loads(path.read_text())["rounds"][:2] == kept
    assert all(part.start >= race.SEEDS.start + 16 for part in computed)
    assert [each.spec for each in found.picks] == [each.spec for each in chosen[1].picks]
    rows = [{**each, "state": ""} for each in found.candidates]
    assert rows == [{**each, "state": ""} for each in chosen[1].candidates]


def test_an_interrupted_round_ends_at_once_and_a_resumed_race_keeps_what_was_not_tried(tmp_path):
    found = candidates.gather(teacher(), [4], tmp_path, Silent(), solvers=SOLVERS, calls=None)
    about = {"calls": 5 * 8 * (40 + 4 * 8), "seconds": None, "say": lambda line: None}
    stopped = race.Race(teacher(), found.candidates, tmp_path, tmp_path / "race.json", **about)
    stopped.stop.set()
    with pytest.raises(Cancelled):
        stopped.run()
    assert not (tmp_path / "race.json").exists()
    tight = {**about, "calls": 2 * 8 * (40 + 4 * 4)}
    ended = race.Race(teacher(), found.candidates, tmp_path, tmp_path / "race.json", **tight)
    ended.run()
    again = race.Race(teacher(), found.candidates, tmp_path, tmp_path / "race.json", **tight)
    again.run()
    assert [each.out for each in again.runners] == [each.out for each in ended.runners]
    assert race.NOT_TRIED in {each.out for each in ended.runners}


def test_a_limit_on_calls_holds_and_one_that_is_too_low_is_refused(tmp_path):
    calls = 0

    def counted(x, sigma):
        nonlocal calls
        calls += len(x)
        return toys.denoise(x, sigma)

    limit = 12_000
    found = choose(teacher(counted), 4, out=tmp_path, solvers=SOLVERS, calls=limit)
    assert found.cost["calls"] <= 0.6 * limit
    assert calls <= limit
    with pytest.raises(UserError, match=r"too little for the smallest race, which takes \d+ network calls") as caught:
        choose(teacher(), 4, out=tmp_path, solvers=SOLVERS, calls=100)
    enough = int(re.search(r"give (\d+) calls", str(caught.value))[1])
    assert choose(teacher(), 4, out=tmp_path, solvers=SOLVERS, calls=enough + 1).pick


def test_a_race_that_fits_two_candidates_of_a_budget_alone_is_run_with_these(tmp_path):
    found = candidates.gather(teacher(), [4], tmp_path, Silent(), solvers=None, calls=None)
    assert len(found.candidates) > 30
    about = {"seconds": None, "say": lambda line: None}
    tight = race.Race(teacher(), found.candidates, tmp_path, tmp_path / "a.json", calls=4 * (40 + 8), **about)
    tight.run()
    assert [bool(each.errors) for each in tight.runners] == [True, True] + [False] * (len(tight.runners) - 2)


@pytest.mark.parametrize("seconds", [600.0, 1e-3])
def test_the_time_left_trains_learned_solvers_which_take_part_if_they_are_finished(tmp_path, monkeypatch, seconds):
    short = replace(
        recipes.load("gs", "digits"), iterations=3, batch=8, train_size=16, validation_size=8, validate_every=3
    )
    monkeypatch.setattr(choosing, "TRAINED", ("gs",))
    monkeypatch.setattr(recipes, "chosen", lambda solver, teacher: short)
    heard = Heard()
    asked = {"nfe": 4, "out": tmp_path, "solvers": "dpm,euler", "train": True, "tell": heard}
    if seconds < 1:  # the race itself has no time then: it is given what it needs
        monkeypatch.setattr(choosing, "RACE", 1e6)
    found = choose(teacher(), **asked, seconds=seconds)
    took_part = "gs" in set(sb.load_results(found.report).frame["solver"])
    assert took_part == (seconds > 1)
    assert any("training gs at 4 calls" in line for line in heard.lines)
    assert took_part != any("is not finished and takes no part" in line for line in heard.lines)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"calls": 0}, "not a positive number"),
        ({"seconds": 0.0}, "not above 0"),
        ({"train": True}, "needs a limit on the time"),
        ({"exports": ("pdf",)}, "isn't a kind of export"),
        ({"nfe": "0"}, "nfe"),
        ({"solvers": "heun", "nfe": 3}, "no candidate"),
        ({"by": "fid"}, "choose by another metric"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, asked, why):
    with pytest.raises(UserError, match=why) as caught:
        choose(teacher(), **{"nfe": 4, "out": tmp_path, "solvers": "dpm,euler"} | asked)
    assert "\n" not in str(caught.value)


def test_a_teacher_that_diverges_or_a_rough_reference_ends_the_choice_with_one_line(tmp_path):
    def wild(x, sigma):
        return 1.8 * toys.denoise(x, sigma)

    with pytest.raises(UserError, match=r"its own samples .* diverge"):
        choose(teacher(wild), 4, out=tmp_path, solvers="dpm,euler")

    def broken(x, sigma):
        return x * float("nan")

    for known in ({}, {"sampler_error": None}):  # its error came with it, or is measured
        with pytest.raises(UserError, match=r"its own samples .* can't be used: .* not finite") as caught:
            choose(teacher(broken, identity="broken", **known), 4, out=tmp_path, solvers="dpm,euler")
    assert "cell" not in str(caught.value)
    rough = replace(
        toys.converged("heun", 8), comparisons=(replace(toys.converged("heun", 8).comparisons[0], rmse=0.6),)
    )
    with pytest.raises(UserError) as caught:
        choose(toys.teacher(sampler_error=rough), 4, out=tmp_path, solvers="dpm,euler")
    assert str(caught.value) == warning("toy", 8, 0.6)  # the sentence of runs and reports


@pytest.mark.usefixtures("unrendered")
def test_the_command_prints_the_picks_and_json(tmp_path):
    words = [
        "recommend",
        "--nfe",
        "4",
        "--solvers",
        "dpm,euler,unipc",
        "--calls",
        "9000",
        "--out",
        str(tmp_path),
        "--json",
    ]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert re.search(rf"^ +4  {told['pick']['spec']} +\d\.\d+ \[", done.stdout, re.MULTILINE)
    assert (tmp_path / "recommendations").is_dir()
    assert "round 1" in done.stderr
    wrong = CliRunner().invoke(main, ["recommend", "--time", "soon"])
    assert wrong.exit_code == 2
    assert "--time soon: isn't a time" in wrong.stderr


def test_the_time_for_training_also_ends_the_images_that_it_needs(tmp_path, monkeypatch):
    """They can take hours; the network's next call ends them."""
    calls = 0

    def slow(x, sigma):
        nonlocal calls
        calls += 1
        return toys.denoise(x, sigma)

    monkeypatch.setattr(choosing, "TRAINED", ("gs",))
    found = candidates.gather(teacher(), [4], tmp_path, Silent(), solvers="dpm,euler", calls=None)
    about = {"calls": None, "seconds": None, "say": lambda line: None}
    runs = race.Race(teacher(slow), found.candidates, tmp_path, tmp_path / "race.json", **about)
    heard = Heard()
    monkeypatch.setattr(recipes, "chosen", lambda solver, teacher: recipes.load("gs", "digits"))
    assert choosing._trained(runs, teacher(slow), tmp_path, 0.0, heard) == []
    assert calls == 0
    assert "not finished and takes no part" in heard.lines[-1]


def test_any_metric_of_the_teachers_images_decides_between_the_leaders(tmp_path):
    found = choose(teacher(), 4, out=tmp_path, solvers="dpm,unipc,euler", by="psnr_teacher")
    assert found.by == "psnr_teacher"
    frame = sb.load_results(found.report).frame
    assert set(frame["metric"]) == {"rmse_teacher", "psnr_teacher"}
    values = frame[frame.metric == "psnr_teacher"].set_index("solver")["value"]
    assert found.pick.value == pytest.approx(values[found.pick.spec])
    for each in found.pick.comparisons:
        assert each.verdict == ("ahead" if each.low > 0 else "behind" if each.high < 0 else "level")
