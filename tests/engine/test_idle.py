"""No option is accepted where it can't act: each changes a plan, or the numbers that training starts from."""

import functools
import itertools
from collections.abc import Iterator

import pytest
import torch

import solverbench as sb
from solverbench import registries
from solverbench.errors import SpecError, UserError
from solverbench.learned.ld3 import VARIANTS
from solverbench.method import grids
from solverbench.method.declarations import declared
from solverbench.method.solver import LearnedSolver, Solver
from solverbench.method.spec import solver_class
from solverbench.method.tableau import Tableau
from solverbench.method.tracing import trace

BUDGETS = (5, 10, 9, 8, 7, 6, 4, 3, 2, 1)
"""An option that acts usually does so with five calls."""

VALUES = {
    "r": (0.3, 1.0),
    "c2": (0.5, 0.3, 1.0),
    "gamma": (2.0, 1.0),
    "theta": (0.9, 0.0),
    "t_eps": (None, 0.001),
    "first": (8.0, 2.0),
    "recipe": (None,),
    "training": (None,),  # which file is read
    "order": (None, 1),
    "variant": (None, "bh1", "bh2", "taylor"),
    "prior": (None, "polynomial"),
    "history": (4, 3),
    "points": (1, 2),
    "time_limit": (0.2, 0.5),
    "direction_limit": (0.05, 0.2),
    "pseudo": (None, True, False),
    "corrector": (None, True, False),
    "intervals": (120, 40),
}
"""Values of options that list none."""

AROUND = ({}, {"end": "zero"}, {"afs": True}, {"threshold": True})
"""Options that every classical solver has, given beside its own."""


def values(solver: type[Solver], name: str) -> tuple[object, ...]:
    field, kind = declared(solver)[name]
    if kind is bool:
        return False, True
    if choices := field.metadata["choices"]:
        return choices if field.default in choices else (field.default, *choices)
    return VALUES.get(name) or {"order": (None, 1), "variant": (None, "bh1", "bh2")}[name]


def made(solver: type[Solver], given: dict[str, object]) -> Solver | None:
    try:
        return solver(**given)
    except SpecError:
        return None


def schedules(solver: Solver) -> tuple[sb.NoiseSchedule, ...]:
    return (sb.EDM(), sb.VPLinear()) if solver.learned else (sb.EDM(),)


@functools.cache
def numbers(solver: Solver, nfe: int, schedule: sb.NoiseSchedule) -> list[torch.Tensor] | None:
    """What a solver computes: its tableau; of a learned one also what it starts from, and its tableau elsewhere."""
    solver = solver.on(schedule)
    try:
        if not isinstance(solver, LearnedSolver):
            return _all(trace(solver, solver.grid(schedule, solver.steps(nfe)), check=False))
        solver.steps(nfe)
        found = [*(start := solver.initial(schedule, nfe)).values()]
        for far in ({}, {"theta2": 1.0} if getattr(solver, "mode", "") == "lambda" else {}):  # beyond LD3's limit
            moves = {name: far.get(name, 0.05) * _waves(each) for name, each in start.items()}
            moved = solver.with_parameters({name: each + moves[name] for name, each in start.items()})
            found += _all(trace(moved, moved.grid(schedule, moved.steps(nfe)), check=False))
        return found
    except UserError:
        return None


def _waves(like: torch.Tensor) -> torch.Tensor:
    return torch.sin(torch.arange(1, like.numel() + 1, dtype=torch.float64)).reshape(like.shape)


def _all(tableau: Tableau) -> list[torch.Tensor]:
    return [tableau.sigmas, tableau.weights, tableau.levels]


def differ(one: list[torch.Tensor] | None, other: list[torch.Tensor] | None) -> bool:
    if one is None or other is None:
        return one is not other
    if [each.shape for each in one] != [each.shape for each in other]:
        return True
    # Two formulas of one number agree to rounding; the smallest effect of an option here is 1e-7 (compat quadrature).
    return any(not torch.allclose(a, b, rtol=1e-10, atol=1e-10) for a, b in zip(one, other, strict=True))


def acts(solver: Solver, plain: Solver) -> bool:
    if solver.adapt(_same) is not _same and plain.adapt(_same) is _same:
        return True
    return any(
        differ(numbers(solver, nfe, schedule), numbers(plain, nfe, schedule))
        for nfe in BUDGETS
        for schedule in schedules(solver)
    )


def _same(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x


def given_otherwise(name: str) -> Iterator[tuple[Solver, Solver, str]]:
    """Every accepted choice of options with each that isn't its default: the solver with it, without it, its name."""
    solver = solver_class(name)
    own = [key for key in declared(solver) if key not in ("grid", *grids.PARAMETERS, "afs", "end", "threshold")]
    around: tuple[dict[str, object], ...] = ({},) if solver.learned else AROUND
    for chosen, more in itertools.product(itertools.product(*(values(solver, key) for key in own)), around):
        given = {**dict(zip(own, chosen, strict=True)), **more}
        whole = made(solver, given)
        for key, value in given.items() if whole else ():
            default = declared(solver)[key][0].default
            named = key == "variant" and value == VARIANTS.get(str(given.get("mode")))  # a default by its own name
            plain = None if value == default or named else made(solver, {**given, key: default})
            if plain is not None:
                yield whole, plain, key


@pytest.mark.parametrize("name", sorted(registries.solvers.builtin))
def test_every_option_that_is_accepted_acts(name: str) -> None:
    assert not [f"{whole.spec}: {key}" for whole, plain, key in given_otherwise(name) if not acts(whole, plain)]


named = [name for name in registries.grids.builtin if grids.parameters(name) and not grids.searched(name)]


@pytest.mark.parametrize("name", named)
def test_every_parameter_of_a_grid_acts(name: str) -> None:
    latent, flow = sb.VPDiscrete.latent_diffusion(), sb.RectifiedFlow()
    for key, default in grids.parameters(name).items():
        plain, other = sb.make(f"euler:grid={name}"), sb.make(f"euler:grid={name}:{key}={(default or 1) + 2}")
        assert any(differ(numbers(plain, 5, each), numbers(other, 5, each)) for each in (latent, flow))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("dpm:order=1:lower_order_final=false", "every step has order 1 in any case; leave lower_order_final out"),
        ("unipc:order=1:lower_order_final=false", "every step has order 1 in any case; leave lower_order_final out"),
        ("dpm:order=1:prediction=noise", "a step of order 1 is the same with and without it; leave prediction=noise"),
        ("dpm:order=1:variant=taylor", "a step of order 1 is the same with and without it; leave variant=taylor out"),
        (
            "adams:predictor=1:lower_order_final=false",
            "every step has order 1 in any case; leave lower_order_final out",
        ),
        ("adams:predictor=1:simple=true", "no step has order 2; leave simple out"),
        ("adams:pece=true", "nothing is corrected; give a corrector as well"),
        ("adams:predictor=2:corrector=4", "more than 3 predictions raise no order; use corrector=3, or a predictor"),
        ("exprk:stages=3:c2=0.7", "no finite limit at 2/3; use 0 < c2 < 2/3"),
        ("exprk:c2=1.2", "beyond the end of the step; use 0 < c2 <= 1"),
        ("exprk:final=2", "every interval has 2 calls in any case; leave final out"),
        ("dpm:order=1:singlestep=true", "a step of order 1 is the same with and without it; leave singlestep=true out"),
        ("deis:order=1:form=rho", "order 1 is Euler's method, which interpolates nothing; leave form=rho out"),
        ("deis:order=1:quadrature=compat", "order 1 is Euler's method, which interpolates nothing; leave quadrature"),
        ("ipndm_v:order=2:compat=true", "the public code is right at orders 1 and 2; leave compat out, or use order 3"),
        ("dpmv3:order=2:pseudo=true", "order 2 has the same derivatives either way; leave it out"),
        ("dpmv3:order=1:pseudo=false", "order 1 has the same derivatives either way; leave it out"),
        ("dpmv3:order=1:corrector=false", "order 1 corrects nothing; leave it out"),
        ("dpmv3:order=1:lower_order_final=false", "order 1 has order 1 in any case; leave it out"),
        ("s4s:form=single:order=1", "blocks of one call are the multistep form; leave form out"),
        ("s4s_alt:form=single:order=1", "blocks of one call are the multistep form; leave form out"),
    ],
)
def test_an_option_that_does_not_act_is_an_error(spec: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        sb.make(spec)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
