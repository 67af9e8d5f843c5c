"""Every classical solver has the orders that it declares, and the problems on which they are measured are right."""

import dataclasses

import pytest
import torch
from torchdiffeq import odeint

import solverbench as sb
from solverbench import conformance, registries
from solverbench.conformance import order
from solverbench.method.spec import solver_class

AROUND = {"afs", "end", "threshold"}
"""Options that change what stands around a method, not its orders."""

PAIRS = [
    "dpm2:r=0.3",
    "dpm:d2=full:prediction=noise",
    "dpm:d2=full:lower_order_final=false",
    "dpm:singlestep=true:prediction=noise",
    "unipc:prediction=noise:lower_order_final=false",
    "unipc:order=2:variant=bh1:lower_order_final=false",
    "dpm:order=2:variant=taylor:prediction=noise",
    "dpm:d2=full:variant=taylor:lower_order_final=false",
    "dpm:singlestep=true:variant=taylor:prediction=noise",
    "adams:predictor=1:corrector=2",
    "adams:predictor=2:corrector=3:lower_order_final=false",
    "adams:corrector=4:pece=true",
    "adams:predictor=2:corrector=2",
    "adams:corrector=3:lower_order_final=false",
    "adams:corrector=3:simple=true",
    *(f"exprk:{options}" for options in ("c2=1", "c2=0.3", "final=1", "stages=3:final=1", "stages=3:final=2")),
    "exprk:stages=3:c2=0.4",
    *(f"pfdiff:k={k}:h={h}" for k, h in ((0, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3))),
    "ge:gamma=1.5",
    "ge:gamma=1",
    *(f"cab:order={order}:theta={theta}" for order in (2, 3) for theta in (0, 1)),
]


def variants(name):
    """The solver at each order, as it is and with each other choice of one more option."""
    default = sb.make(name)
    choices = {
        field.name: (True, False) if isinstance(field.default, bool) else field.metadata.get("choices", ())
        for field in dataclasses.fields(solver_class(name))
        if field.name not in AROUND
    }
    for chosen in choices.pop("order", [None]):
        base = {} if chosen is None else {"order": chosen}
        for more in [{}, *({key: value} for key, values in choices.items() for value in values)]:
            try:
                yield dataclasses.replace(default, **base, **more)
            except sb.SpecError:  # the choice needs another one beside it
                continue


CLASSICAL = [name for name in registries.solvers if not solver_class(name).learned]
SOLVERS = sorted({*(solver for name in CLASSICAL for solver in variants(name)), *map(sb.make, PAIRS)}, key=str)
UNDECLARED = {
    *(f"deis:quadrature=compat:order={n}" for n in (2, 3, 4)),
    *(f"pfdiff:k={k}:h={h}" for k, h in ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3))),
    "heunpp2",
}
"""Those of the public quadrature, of rounds that begin at other levels than the measurement's, and of heunpp2, whose
step depends on the next one."""


def test_only_these_declare_no_order():
    missing = {solver for solver in SOLVERS if None in (solver.local_order, solver.global_order)}
    assert missing == set(map(sb.make, UNDECLARED))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.spec)
def test_it_has_the_orders_it_declares(solver):
    for check in conformance.checks(solver):
        if check.name.endswith("_order"):
            check()


@pytest.mark.parametrize(("spec", "declared"), [("dpm:order=3", 2), ("dpm:order=3:d2=full", 3), ("dpm:order=2", 2)])
def test_third_order_dpm_is_second_order_in_its_public_form(spec, declared):
    assert sb.make(spec).local_order == declared
    assert order.local_order(sb.make(spec)) == pytest.approx(dict.fromkeys(order.START, declared), abs=0.1)


@pytest.mark.parametrize("chosen", [1, 2, 3])
def test_the_corrector_of_unipc_gains_an_order(chosen):
    solver = sb.make(f"unipc:order={chosen}")
    assert (solver.predicted_order, solver.local_order) == (chosen, chosen + 1)


class OnAnyGrid(solver_class("ipndm")):
    """iPNDM measured like a solver of unequal steps."""

    uniform = False


@pytest.mark.parametrize("chosen", [2, 3, 4])
def test_constant_coefficients_are_second_order_on_smooth_grids_and_first_on_others(chosen):
    solver = OnAnyGrid(order=chosen)
    assert order.global_order(solver) == pytest.approx(dict.fromkeys(order.START, 2), abs=0.1)
    assert order.local_order(solver) == pytest.approx(dict.fromkeys(order.START, 1), abs=0.1)


def test_the_solutions_solve_the_flow():
    lam = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)

    def slope(lam, x):
        return order.prediction(x, float((-lam).exp())) - x

    by_dopri5 = odeint(slope, order.exact(1.0), lam, rtol=1e-11, atol=1e-12, method="dopri5")
    exact = torch.stack([order.exact(float((-at).exp())) for at in lam])
    assert (by_dopri5 - exact).abs().max() < 1e-9
