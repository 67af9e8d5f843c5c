"""Every registered solver, with every choice of each of its options, keeps what every solver promises.

Its orders are measured in tests/order.
"""

import dataclasses

import pytest

import registries
import solverbench as sb
from solverbench import conformance
from solverbench.spec import solver_class

ORDERS = {"local_order", "predicted_order", "global_order"}


def variants(name):
    """The solver as it is, and with each other choice of each option."""
    default = sb.make(name)
    yield default
    for field in dataclasses.fields(solver_class(name)):
        value = getattr(default, field.name)
        choices = (True, False) if isinstance(value, bool) else field.metadata.get("choices", ())
        for choice in set(choices) - {value}:
            try:
                yield dataclasses.replace(default, **{field.name: choice})
            except sb.SpecError:  # the choice needs another one beside it
                continue


SOLVERS = sorted((solver for name in registries.solvers for solver in variants(name)), key=lambda solver: solver.spec)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.spec)
def test_it_conforms(solver):
    outcomes = [check for check in conformance.checks(solver) if check.name not in ORDERS]
    assert len(outcomes) >= 15
    for check in outcomes:
        check()
