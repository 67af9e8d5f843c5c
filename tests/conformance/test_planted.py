"""A bug of each kind is caught, by a check whose name says what it is; what has none passes."""

import os
import random
import re
import sys
from pathlib import Path

import forks
import numpy as np
import pytest
import torch

import solverbench as sb
from solverbench import conformance, registries
from solverbench.conformance import ConformanceError, processes

pytestmark = pytest.mark.usefixtures("forked_checks")


class Sound(sb.Solver):
    """DPM-Solver++(2M), without an end rule: what the planted bugs below are made from."""

    name = "sound"
    paper = "arXiv:2211.01095"
    local_order = 2
    global_order = 2

    def integrate(self, denoise, x, grid):
        lam, past = -grid.sigmas.log(), []
        for n in range(grid.steps):
            past = [self.call(denoise, x, grid, n), *past]
            x = self.step(x, lam, past, n)
        return x

    def call(self, denoise, x, grid, n):
        return denoise(x, grid.sigmas[n])

    def step(self, x, lam, past, n, share=0.5, back=1):
        h = lam[n + 1] - lam[n]
        x = torch.exp(-h) * x - torch.expm1(-h) * past[0]
        if n < back:
            return x
        return x - torch.expm1(-h) * share * h / (lam[n] - lam[n - 1]) * (past[0] - past[back])


class OffByOne(Sound):
    """Tells the network the next level."""

    def call(self, denoise, x, grid, n):
        return denoise(x, grid.sigmas[n + 1])


class Early(Sound):
    """Leaves the last step out, and makes its call."""

    def integrate(self, denoise, x, grid):
        lam, past = -grid.sigmas.log(), []
        for n in range(grid.steps):
            past = [self.call(denoise, x, grid, n), *past]
            x = self.step(x, lam, past, n) if n + 1 < grid.steps else x
        return x


class ShortOfTheEnd(Sound):
    """Has a grid that ends before the schedule does."""

    def grid(self, schedule, steps):
        own = super().grid(schedule, steps)
        return sb.Grid(own.sigmas + own.sigmas[-1], schedule)


class OneInterval(Sound):
    """Has a grid of one interval more than was asked for."""

    def grid(self, schedule, steps):
        return super().grid(schedule, steps + 1)


class WrongSign(Sound):
    """Subtracts the extrapolation."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n, share=-0.5)


class StaleHistory(Sound):
    """Takes the difference to the value before the last as if it were the last."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n, back=2)


class KeptHistory(Sound):
    """Keeps its history from one run to the next."""

    past = []  # noqa: RUF012 - the bug

    def integrate(self, denoise, x, grid):
        lam = -grid.sigmas.log()
        for n in range(grid.steps):
            self.past.insert(0, denoise(x, grid.sigmas[n]))
            if len(self.past) > 1 and self.past[1].shape != x.shape:
                del self.past[1:]
            h = lam[n + 1] - lam[n]
            slope = self.past[0] + (self.past[0] - self.past[min(1, len(self.past) - 1)]) / 2
            x = torch.exp(-h) * x - torch.expm1(-h) * slope
        return x


class KeptStep(Sound):
    """Remembers in the instance that it has run."""

    def step(self, x, lam, past, n):
        x = super().step(x, lam, past, n, share=0.5 if "ran" not in vars(self) else 0.4)
        if n + 2 == len(lam):
            object.__setattr__(self, "ran", True)
        return x


class WrongOrder(Sound):
    """Leaves the extrapolation out, and still declares the second order."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n, share=0)


class EqualSteps(Sound):
    """Extrapolates as if all steps were equal."""

    def step(self, x, lam, past, n):
        h = lam[n + 1] - lam[n]
        x = torch.exp(-h) * x - torch.expm1(-h) * past[0]
        return x - torch.expm1(-h) / 2 * (past[0] - past[1]) if n else x


class ExtraCall(Sound):
    """Evaluates the end point too."""

    def integrate(self, denoise, x, grid):
        x = super().integrate(denoise, x, grid)
        denoise(x, grid.sigmas[-1])
        return x


class Seeding(Sound):
    """Seeds torch."""

    def integrate(self, denoise, x, grid):
        torch.manual_seed(0)
        return super().integrate(denoise, x, grid)


class SeedingNumpy(Sound):
    """Draws from numpy's global state."""

    def integrate(self, denoise, x, grid):
        np.random.rand()  # noqa: NPY002 - the bug
        return super().integrate(denoise, x, grid)


class Drawing(Sound):
    """Draws from the random module."""

    def integrate(self, denoise, x, grid):
        random.random()
        return super().integrate(denoise, x, grid)


class Salted(Sound):
    """Depends on a hash, which Python salts in every process."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n, share=0.5 + hash("salt") % 1000 * 1e-6)


class Mutating(Sound):
    """Steps in place."""

    def step(self, x, lam, past, n):
        h = lam[n + 1] - lam[n]
        return x.mul_(torch.exp(-h)).sub_(torch.expm1(-h) * past[0])


class MutatingOutput(Sound):
    """Scales the network's output in place."""

    def call(self, denoise, x, grid, n):
        return denoise(x, grid.sigmas[n]).mul_(1.0 + 1e-9)


class Clipping(Sound):
    """Clips the prediction, and says nothing."""

    def call(self, denoise, x, grid, n):
        return denoise(x, grid.sigmas[n]).clamp(-1, 1)


class Branching(Sound):
    """Leaves the extrapolation out where the state is small."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n, share=0.5 if x.abs().max() > 5 else 0)


class Adapting(Sound):
    """Makes another call where the prediction is large."""

    def call(self, denoise, x, grid, n):
        d = denoise(x, grid.sigmas[n])
        return denoise(x, grid.sigmas[n]) if d.abs().max() > 1.2 else d


class Averaging(Sound):
    """Removes the mean over the batch."""

    def call(self, denoise, x, grid, n):
        d = denoise(x, grid.sigmas[n])
        return d - d.mean(0, keepdim=True) / 1000


class Doubling(Sound):
    """Computes in float64 whatever comes in."""

    def step(self, x, lam, past, n):
        return super().step(x.double(), lam, past, n)


class Homing(Sound):
    """Makes its coefficients with one axis, on the CPU."""

    def step(self, x, lam, past, n):
        return super().step(x, lam.reshape(-1, 1), past, n)


class Staying(Sound):
    """Adds zeros of its own, on the CPU."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n) + torch.zeros(x.shape, dtype=x.dtype)


class Itemising(Sound):
    """Turns levels into numbers, which cuts the gradient."""

    def integrate(self, denoise, x, grid):
        return super().integrate(denoise, x, sb.Grid(torch.tensor(grid.sigmas.tolist()).double(), grid.schedule))


class Detaching(Sound):
    """Detaches some coefficients."""

    def step(self, x, lam, past, n):
        return super().step(x, lam.detach(), past, n) + 0 * lam[n] * x


class Requiring(Sound):
    """Makes a coefficient require gradient."""

    def step(self, x, lam, past, n):
        return super().step(x, lam.clone().requires_grad_(), past, n)


class Claiming(Sound):
    """Refuses odd budgets, naming one that it refuses too."""

    def steps(self, nfe):
        if nfe % 2:
            raise sb.BudgetError(
                asked=f"claiming with nfe={nfe}", wrong="odd", remedy=f"use nfe={nfe + 2}", near=[nfe + 2]
            )
        return nfe


class Refusing(Sound):
    """Refuses odd budgets by the wrong exception."""

    def steps(self, nfe):
        if nfe % 2:
            raise ValueError("odd")
        return nfe


class Overflowing(Sound):
    """Divides by zero on its last step."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n) / (len(lam) - 2 - n)


class OneBudget(Sound):
    """Divides by zero where there are nine steps."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n) / (len(lam) - 10)


class Indexing(Sound):
    """Reads beyond its grid where there are no steps enough."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n) + 0 * lam[3]


class Remembering(Sound):
    """Has an option that its spec doesn't hold."""

    hidden: float = sb.option(1.23456789012345678, help="more digits than a spec writes")


class Helpless(Sound):
    """Has an option that `info` can't explain."""

    gain: float = sb.option(1.0)


class Unnoticed(Sound):
    """Has a field that is no option."""

    gain: float = 1.0


class Shouting(Sound):
    """Has a name that no spec can hold."""

    name = "Sound 2M"


class Undocumented(Sound):
    pass


class Anonymous(sb.Solver):
    """Euler, from nowhere."""

    name = "anonymous"

    def integrate(self, denoise, x, grid):
        return x


class Corrected(sb.Solver):
    """Predictor of order 2 and corrector of order 3 in lambda, as UniPC with bh2."""

    name = "corrected"
    paper = "arXiv:2302.04867"
    local_order = 3
    predicted_order = 2
    global_order = 3

    def integrate(self, denoise, x, grid):
        sigmas, lam = grid.sigmas, -grid.sigmas.log()
        past = [denoise(x, sigmas[0])]
        for n in range(grid.steps):
            h = lam[n + 1] - lam[n]
            base = torch.exp(-h) * x - torch.expm1(-h) * past[0]
            older = [] if n == 0 else [((lam[n - 1] - lam[n]) / h, past[1] - past[0])]
            predicted = self.predict(base, h, older)
            if n + 1 == grid.steps:
                return predicted
            new = denoise(predicted, sigmas[n + 1])
            x = base - torch.expm1(-h) * (new - past[0]) / 2
            for r, d in older:
                g1 = torch.expm1(-h) / -h - 1
                b1, b2 = g1 / torch.expm1(-h), 2 * (g1 / -h - 0.5) / torch.expm1(-h)
                weight = (b2 - b1) / (r - 1)
                x = base - torch.expm1(-h) * (weight * d / r + (b1 - weight) * (new - past[0]))
            past = [new, *past]
        raise AssertionError

    def predict(self, base, h, older):
        return base - torch.expm1(-h) * sum(d / r for r, d in older) / 2 if older else base


class BrokenPredictor(Corrected):
    """Predicts by the first order; the corrector hides it where the network doesn't depend on the state."""

    def predict(self, base, h, older):
        return base


class Trained(sb.LearnedSolver):
    """DPM-Solver++(2M) with learned extrapolation: what the learned bugs below are made from."""

    name = "trained"
    paper = "none: a test's own"

    def initial(self, schedule, nfe):
        return {"share": torch.full((nfe - 1,), 0.5, dtype=torch.float64), "gain": torch.zeros(1, dtype=torch.float64)}

    def steps(self, nfe):
        if nfe < 2:
            raise sb.refuse_budget(self, nfe, "nothing to extrapolate", [2])
        return nfe

    def grid(self, schedule, steps):
        if len(self.trained["share"]) + 1 != steps:
            raise sb.GridError(asked=self.name, wrong=f"parameters for other steps than {steps}", remedy="train them")
        return super().grid(schedule, steps)

    def integrate(self, denoise, x, grid):
        lam, last = -grid.sigmas.log(), None
        for n in range(grid.steps):
            d = denoise(x, grid.sigmas[n])
            h = lam[n + 1] - lam[n]
            ahead = 0 * d if last is None else self.share(n - 1) * h / (lam[n] - lam[n - 1]) * (d - last)
            x, last = torch.exp(-h) * x - torch.expm1(-h) * (d + ahead) * (1 + self.trained["gain"][0]), d
        return x

    def share(self, n):
        return self.trained["share"][n]


class Deaf(Trained):
    """Doesn't listen to its last shares."""

    def share(self, n):
        return 0.5


class Unlearned(Trained):
    """Reads parameters as numbers."""

    def share(self, n):
        return self.trained["share"][n].detach()


class Narrow(Trained):
    """Starts in float32."""

    def initial(self, schedule, nfe):
        return {name: value.float() for name, value in super().initial(schedule, nfe).items()}


class Drawn(Trained):
    """Draws where it starts."""

    def initial(self, schedule, nfe):
        return {name: value + torch.rand(()).double() / 100 for name, value in super().initial(schedule, nfe).items()}


class Misshapen(Trained):
    """Says that there is a share more."""

    def shapes(self, nfe):
        return {"share": (nfe,), "gain": (1,)}


class Grouped(Trained):
    """Has a group of its own."""

    def group(self, name):
        return "mine"


class Obliging(Trained):
    """Takes parameters for any number of steps."""

    def grid(self, schedule, steps):
        return sb.Solver.grid(self, schedule, steps)

    def share(self, n):
        return self.trained["share"][n % len(self.trained["share"])]


class Counting(Trained):
    """Trains something outside its parameters."""

    made = []  # noqa: RUF012 - the bug

    def with_parameters(self, parameters):
        self.made.append(parameters)
        return super().with_parameters(parameters)

    def share(self, n):
        return super().share(n) * (1 + 1e-3 * len(self.made))


CAUGHT = [
    (OffByOne, "consistent"),
    (Early, "last_level"),
    (Early, "global_order"),
    (ShortOfTheEnd, "last_level"),
    (OneInterval, "last_level"),
    (OneInterval, "nfe"),
    (KeptStep, "repeatable"),
    (Salted, "cell_key"),
    (Adapting, "linear"),
    (Staying, "device"),
    (Refusing, "nfe"),
    (OneBudget, "finite"),
    (Indexing, "finite"),
    (Helpless, "options"),
    (Unnoticed, "options"),
    (Shouting, "documented"),
    (Anonymous, "documented"),
    (Anonymous, "nfe"),
    (Deaf, "parameter_gradients"),
    (Unlearned, "parameter_gradients"),
    (Narrow, "parameters"),
    (Narrow, "saved"),
    (Drawn, "parameters"),
    (Misshapen, "parameters"),
    (Misshapen, "saved"),
    (Grouped, "parameters"),
    (Obliging, "wrong_parameters"),
    (Counting, "saved"),
    (WrongSign, "local_order"),
    (StaleHistory, "local_order"),
    (KeptHistory, "repeatable"),
    (BrokenPredictor, "predicted_order"),
    (WrongOrder, "local_order"),
    (WrongOrder, "global_order"),
    (EqualSteps, "local_order"),
    (ExtraCall, "nfe"),
    (Claiming, "nfe"),
    (Seeding, "randomness"),
    (SeedingNumpy, "randomness"),
    (Drawing, "randomness"),
    (Mutating, "inputs"),
    (MutatingOutput, "inputs"),
    (Clipping, "linear"),
    (Branching, "linear"),
    (Averaging, "batch"),
    (Doubling, "dtype"),
    (Homing, "dtype"),
    (Itemising, "level_gradients"),
    (Detaching, "level_gradients"),
    (Requiring, "detached"),
    (Overflowing, "finite"),
    (Overflowing, "scrambled"),
    (Remembering, "spec_round_trip"),
    (Undocumented, "documented"),
]


UNDECLARED = {
    Sound: {"parameters", "parameter_gradients", "wrong_parameters", "saved", "recipe"},
    Corrected: {"parameters", "parameter_gradients", "wrong_parameters", "saved", "recipe"},
    Trained: {"recipe", "consistent", "local_order", "predicted_order", "global_order"},
}


@pytest.mark.parametrize("cls", UNDECLARED)
def test_a_sound_solver_passes_and_what_it_doesn_t_declare_is_said(cls, monkeypatch):
    if cls is not Trained:  # one of them in another process is enough
        monkeypatch.setattr(processes, "elsewhere", lambda subjects: list(map(processes.keys, subjects)))
    found = list(conformance.run_all(cls))
    assert [each.line for each in found if each.status == conformance.FAIL] == []
    assert {each.name for each in found if each.status == conformance.UNDECLARED} == UNDECLARED[cls]
    assert all(each.finding for each in found)


@pytest.mark.parametrize(("cls", "said"), [(Itemising, "tolist"), (Detaching, "detach")])
def test_a_lost_gradient_is_told_with_the_line_that_loses_it(cls, said):
    (check,) = (check for check in conformance.checks(cls) if check.name == "level_gradients")
    assert re.search(rf"test_planted\.py:\d+: {said}\(\) of a level: ", check.outcome().finding)


@pytest.mark.parametrize(("cls", "name"), CAUGHT, ids=[f"{cls.__name__}-{name}" for cls, name in CAUGHT])
def test_a_planted_bug_is_caught(cls, name):
    (check,) = (check for check in conformance.checks(cls) if check.name == name)
    found = check.outcome()
    assert (found.name, found.status) == (name, conformance.FAIL)
    assert found.line.startswith(f"{cls.name}:")
    assert "; " in found.finding  # what was found; what to do


def test_seeding_is_found_after_other_checks_have_run_the_loop():
    (check,) = (check for check in conformance.checks(Seeding) if check.name == "randomness")
    before = torch.get_rng_state()
    assert [check.outcome().status for _ in range(3)] == [conformance.FAIL] * 3
    assert torch.equal(torch.get_rng_state(), before), "the check leaves the states as they were"


def test_what_a_loop_keeps_is_found_after_other_checks_have_run_it():
    failed = {found.name for found in conformance.run_all(KeptStep) if found.status == conformance.FAIL}
    assert "repeatable" in failed


def test_a_bug_in_a_test_of_ones_own_is_one_line():
    with pytest.raises(
        ConformanceError, match=r"^sound:.*: nfe: makes 2 calls where it claims 1; mend the loop, or let"
    ):
        next(check for check in conformance.checks(ExtraCall) if check.name == "nfe")()


def test_what_a_loop_raises_is_named_with_its_line():
    found = next(check for check in conformance.checks(Indexing) if check.name == "nfe").outcome()
    assert found.status == conformance.FAIL
    assert re.match(r".*test_planted\.py:\d+: IndexError: .*; fix it there$", found.finding)


class Unread(Trained):
    """Has a setting in its recipe that there isn't."""

    name = "unread"
    trained_by = {"base": "gs", "digits": {"iteration": 10}}  # noqa: RUF012 - a test's own


class Neglected(Trained):
    """Has a recipe that leaves its only parameters out."""

    name = "neglected"
    trained_by = {"base": "gs", "shapes": {"stages": "times+offsets"}}  # noqa: RUF012 - a test's own


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Unread, "there is no setting 'iteration'; did you mean 'iterations'?"),
        (Neglected, "stages=times+offsets never train 'share', which is in group coefficients; add the group"),
    ],
)
def test_a_bug_in_a_recipe_is_caught(cls, said):
    sb.register(cls)
    try:
        (check,) = (check for check in conformance.checks(cls) if check.name == "recipe")
        found = check.outcome()
    finally:
        registries.solvers.withdraw(cls.name)
    assert found.status == conformance.FAIL
    assert said in found.finding


def test_what_no_other_process_can_find_isn_t_asked_for_there():
    class Local(Sound):
        """Lives in a function, as others in a notebook."""

    undeclared = conformance.run_all(Local)
    assert {found.name for found in undeclared if found.status == conformance.UNDECLARED} == {
        "cell_key",
        *UNDECLARED[Sound],
    }


SCRIPT = """
import solverbench as sb
from solverbench import conformance


class Scripted(sb.Solver):
    '''Euler, in a script.'''

    name = "scripted"
    paper = "none: a test's own"

    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            x = x + (grid.sigmas[n + 1] - grid.sigmas[n]) * (x - denoise(x, grid.sigmas[n])) / grid.sigmas[n]
        return x


print([check.outcome().line for check in conformance.checks(Scripted) if check.name == "cell_key"])
"""


def test_a_script_can_check_what_it_defines_whenever_it_is_imported(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = forks.run(["script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.stdout == "['scripted:grid=polynomial:rho=7: cell_key: equal in two processes at 1-12 calls']\n", done


@pytest.mark.parametrize("subject", [Sound(), sb.load_teacher("mixture")], ids=["solver", "teacher"])
def test_every_check_is_documented(subject):
    page = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
    said = page.partition("## Checks of a ")[2].partition("## Starting")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "elsewhere", lambda subjects: list(map(processes.keys, subjects)))
        assert [found.name for found in conformance.run_all(subject) if f"`{found.name}`" not in said] == []
