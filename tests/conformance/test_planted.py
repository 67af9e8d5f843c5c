"""A bug of each kind is caught, by a check whose name says what it is; what has none passes."""

import random

import numpy as np
import pytest
import torch

import solverbench as sb
from solverbench import conformance
from solverbench.conformance import ConformanceError


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
            raise sb.BudgetError(f"claiming with nfe={nfe}: odd; use nfe={nfe + 2}")
        return nfe


class Overflowing(Sound):
    """Divides by zero on its last step."""

    def step(self, x, lam, past, n):
        return super().step(x, lam, past, n) / (len(lam) - 2 - n)


class Remembering(Sound):
    """Has an option that its spec doesn't hold."""

    hidden: float = sb.option(1.23456789012345678, help="more digits than a spec writes")


class Undocumented(Sound):
    pass


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


CAUGHT = [
    (OffByOne, "consistent"),
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


def failures(solver):
    return {outcome.name: outcome.line for outcome in conformance.run_all(solver) if not outcome.passed}


@pytest.mark.parametrize("cls", [Sound, Corrected])
def test_a_sound_solver_passes(cls):
    assert failures(cls()) == {}


@pytest.mark.parametrize(("cls", "name"), CAUGHT, ids=[f"{cls.__name__}-{name}" for cls, name in CAUGHT])
def test_a_planted_bug_is_caught(cls, name):
    (check,) = (check for check in conformance.checks(cls()) if check.name == name)
    with pytest.raises(ConformanceError, match=f"^{cls.name}.*: {name}: "):
        check()
