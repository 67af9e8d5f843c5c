"""Bugs of a plugin's solver that `run` can see before it samples: each is refused in the words of its cause."""

import re

import pytest
import toys

import solverbench as sb
from solverbench import conformance, plugins
from solverbench.bench import images
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.errors import BudgetError, LoopError, NotLinearError, SpecError
from solverbench.sampling import endpoints

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")

LOOP = """
import numpy as np
import torch
import solverbench as sb


class Suspect(sb.Solver):
    '''A test's own.'''

    name, paper = "suspect", "none"
    METHODS

    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            s, t = grid.sigmas[n], grid.sigmas[n + 1]
            BODY
        return x
"""

EULER = "x = x + (t - s) * (x - denoise(x, s)) / s"


def loop(body=EULER, methods=""):
    return LOOP.replace("BODY", body.replace("\n", "\n            ")).replace("METHODS", methods)


def run(solvers, nfe="4"):
    options = RunOptions(solvers=solvers, teachers=toys.teacher(), out="runs", samples=20, replicates=1, nfe=nfe)
    return runner.run(options).cells


ANCESTRAL = EULER + "\nx = x + 0.1 * t * NOISE"

WRONG = {
    "noise": (
        ANCESTRAL.replace("NOISE", "torch.randn_like(x)"), "randn_like",
        r"the loop draws random numbers \(randn_like\); solvers here are deterministic: leave the noise out, as "
        r"ancestral sampling, SDE solvers and churn do with eta = 0",
    ),
    "noise of a generator": (
        ANCESTRAL.replace("NOISE", "torch.randn(x.shape, generator=torch.Generator().manual_seed(n))"), "torch.randn(",
        r"the loop draws random numbers \(randn\); solvers here are deterministic",
    ),
    "noise of numpy": (
        ANCESTRAL.replace("NOISE", "float(np.random.default_rng().normal()) * x"), None,
        r"two runs of the loop from one state differ: it draws random numbers, or keeps something from run to run: "
        r"loop and tableau differ .*; solvers here are deterministic",
    ),
    "a constant": (
        EULER + "\nx = x + 0.01", "def integrate",
        "adds to a state what is neither x nor an earlier output; combine x and the outputs linearly",
    ),
    "an adaptive step": (
        "d = denoise(x, s)\nif (x - d).abs().max() > 0.9 * s:\n    d = denoise(x, s)\n"
        + EULER.replace("denoise(x, s)", "d"),
        None,
        r"the number of calls depends on the values, as with an adaptive step size: loop and tableau differ .*; end it "
        r"at grid.steps: the grid fixes the steps, an adaptive step size can't be run",
    ),
    "float32": (
        f"s = s.float()\n{EULER}", "s = s.float()",
        r"levels or coefficients are in float32 or below \(float\): loop and tableau differ on a random network "
        r"\(relative .*e-0[78]\); keep them in float64, as grid.sigmas is",
    ),
    "clipped outputs": (
        EULER.replace("denoise(x, s)", "denoise(x, s).clamp(-1, 1)"), "clamp",
        r"the loop applies clamp to a state or an output, which isn't linear: loop and tableau differ on a random "
        r"network \(relative [^,]*\); combine x and the outputs linearly, with numbers made from grid\.sigmas",
    ),
    "outputs of one norm": (
        "d = denoise(x, s)\nd = d / d.norm()\n" + EULER.replace("denoise(x, s)", "d"), "d.norm()",
        "the loop applies norm to a state or an output",
    ),
    "a product of outputs": (
        "d = denoise(x, s)\nx = x + 1e-2 * d * d\n" + EULER.replace("denoise(x, s)", "d"), "d * d",
        r"the loop multiplies or divides states or outputs by each other \(mul\)",
    ),
    "x0 taken for the noise": (
        "x = x + (t - s) * denoise(x, s)", "def integrate",
        r"at call 2 the state has the noise of level 80, not 17\.5; denoise returns the clean image, not the noise, "
        r"and is told the level of the state that it is given; if it is meant, declare consistent = False",
    ),
    "another level told": (
        EULER.replace("denoise(x, s)", "denoise(x, t)"), "def integrate",
        "at call 1 the state has the noise of level 80, not ",
    ),
    "a wrong sum": (
        EULER.replace("denoise(x, s)", "0.9 * denoise(x, s)"), "def integrate",
        r"at call 2 the outputs' weights sum to 0\.70\d*, not 0\.78\d*",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", WRONG)
def test_a_bug_is_refused_before_anything_is_sampled(examples, bug):
    body, part, said = WRONG[bug]
    text = loop(body)
    plugins.load(examples("suspect.py", text))
    suspect, euler = run("suspect,euler")
    assert (suspect.status, euler.status) == ("failed", "done")
    assert re.search(said, suspect.reason), suspect.reason
    if part:
        number = 1 + next(n for n, line in enumerate(text.splitlines()) if part in line)
        assert f"suspect.py:{number}: " in suspect.reason


def test_a_teachers_sampler_and_images_are_not_made_by_such_a_solver(examples, tmp_path):
    path = examples("suspect.py", loop("x = x + (t - s) * denoise(x, s)"))
    plugins.load(path)
    with pytest.raises(LoopError, match="at call 2 the state has the noise of level 80"):
        endpoints.sampler_plan(toys.teacher(sampler="suspect", sampler_nfe=4))
    with pytest.raises(LoopError, match="at call 2 the state has the noise of level 80"):
        images.write("suspect", 4, "50000", "png", tmp_path / "images", 1, "mixture", "cpu", tmp_path / "runs")


def test_a_solver_that_is_meant_to_be_inconsistent_is_run(examples):
    body = EULER.replace("denoise(x, s)", "0.9 * denoise(x, s)")
    plugins.load(examples("suspect.py", loop(body, "consistent = False")))
    assert [each.status for each in run("suspect")] == ["done"]


def test_an_endless_loop_is_told_that_steps_are_fixed(examples):
    plugins.load(examples("suspect.py", loop(f"while s > 0:\n    {EULER}")))
    [suspect] = [each for each in run("suspect,euler") if each.status == "failed"]
    assert "doesn't end; end it at grid.steps: the grid fixes the steps, an adaptive step size" in suspect.reason


TWICE = f"{EULER}\ndenoise(x, t)"

COUNTS = {
    "the last step skipped": (
        f"if n < grid.steps - 1:\n    {EULER}", 4,
        "= 4, but its loop makes 3 calls; let steps(4) return 5, with which it makes 4 calls",
    ),
    "two calls a step": (
        TWICE, 8, "= 8, but its loop makes 16 calls; let steps(8) return 4, with which it makes 8 calls",
    ),
    "two calls a step, odd": (
        TWICE, 5,
        "= 5, but its loop makes 10 calls; let steps(5) refuse (sb.refuse_budget): the loop can make 4 or 6",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", COUNTS)
def test_advice_on_calls_is_right(examples, case):
    body, nfe, said = COUNTS[case]
    plugins.load(examples("suspect.py", loop(body)))
    [suspect] = [each for each in run("suspect,euler", str(nfe)) if each.status == "failed"]
    assert suspect.reason == f"claims nfe={nfe} with steps({nfe}) {said}"
    with pytest.raises(BudgetError, match=re.escape(said)) as caught:
        sb.tableau("suspect", nfe=nfe)
    assert not caught.value.near


def test_advice_on_calls_leads_to_a_solver_that_runs(examples):
    plugins.load(examples("suspect.py", loop(TWICE, "steps = lambda self, nfe: nfe // 2")))
    assert sb.tableau("suspect", nfe=8).nfe == 8


class Levelled(sb.Solver):
    """Euler's method on levels of its own choice."""

    name, paper, levels, rho = "levelled", "none", "time_uniform", 1.5

    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            s, t = grid.sigmas[n], grid.sigmas[n + 1]
            x = x + (t - s) * (x - denoise(x, s)) / s
        return x


def test_a_class_attribute_is_the_default_of_an_inherited_option():
    assert Levelled().spec == "levelled:grid=time_uniform:rho=1.5"
    assert sb.tableau(Levelled(), nfe=4).equals(sb.tableau("euler:grid=time_uniform:rho=1.5", nfe=4))
    assert Levelled(levels="logsnr", rho=None).spec == "levelled:grid=logsnr"

    class Again(Levelled):
        levels = sb.option("logsnr", help="its own")
        rho = None

    assert Again().spec == "levelled:grid=logsnr"
    assert Levelled().spec == "levelled:grid=time_uniform:rho=1.5"
    checks = [each for each in conformance.checks(Levelled()) if each.name in ("options", "spec_round_trip", "linear")]
    assert all(each.outcome().passed for each in checks)


@pytest.mark.parametrize("attribute", ["grid_name", "grid"])
def test_an_attribute_that_is_not_read_is_refused(attribute):
    with pytest.raises(SpecError, match=rf'{attribute} = \'logsnr\': .*; give levels = NAME, as in levels = "logsnr"'):
        type("Named", (sb.Solver,), {attribute: "logsnr", "integrate": Levelled.integrate, "name": "named"})


OWN = """
def grid(self, schedule, steps):
        return GRID
"""


@pytest.mark.parametrize(
    ("grid", "right"),
    [
        ("sb.Grid(torch.logspace(0, -4, steps + 1).double() * schedule.sigma_first, schedule)", False),
        ("(type(self)(levels='logsnr') if self.levels != 'logsnr' else super()).grid(schedule, steps)", False),
        ("super().grid(schedule, steps)", True),
        ("sb.Grid(torch.cat([super().grid(schedule, steps - 1).sigmas, torch.zeros(1).double()]), schedule)", True),
    ],
    ids=["levels of its own", "another named grid", "the named one", "a last level of 0"],
)  # fmt: skip
def test_levels_are_those_that_the_spec_says(examples, grid, right):
    plugins.load(examples("suspect.py", loop(methods=OWN.replace("GRID", grid).strip())))
    found = sb.make("suspect")
    if right:
        suspect_grid = found.grid(sb.EDM(), 4)
        assert sb.method.suspects.other_levels(found, suspect_grid, 4) == ""
        return
    with pytest.raises(LoopError, match="other levels than its spec says"):
        sb.tableau("suspect", nfe=4)
    [suspect] = [each for each in run("suspect,euler") if each.status == "failed"]
    assert re.search(
        r"suspect\.py:\d+: its own `grid` makes other levels than its spec says \(.*, where grid=polynomial has 17\.\d+"
        r"\); register the function that makes them \(kind='grid'\) and give the class levels = \"NAME\"",
        suspect.reason,
    )


def test_python_gets_the_cause_too():
    class Noisy(Levelled):
        name = "noisy"

        def integrate(self, denoise, x, grid):
            import torch

            return denoise(x, grid.sigmas[0]) + torch.randn_like(x)

    with pytest.raises(NotLinearError, match=r"test_suspects\.py:\d+: the loop draws random numbers \(randn_like\)"):
        sb.tableau(Noisy(), nfe=1)
