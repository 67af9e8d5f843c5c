"""Every registered solver, with every choice of each of its options, keeps what every solver promises.

Its orders are measured in tests/order; its key in another process is made below, once for all.
"""

import dataclasses

import pytest

import solverbench as sb
from solverbench import conformance, registries
from solverbench.conformance import processes
from solverbench.method.spec import solver_class

ELSEWHERE = {"local_order", "predicted_order", "global_order", "cell_key"}


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
    outcomes = [check for check in conformance.checks(solver) if check.name not in ELSEWHERE]
    assert len(outcomes) >= 15
    for check in outcomes:
        check()


def test_the_keys_of_all_are_equal_in_two_processes():
    subjects = [*map(sb.make, registries.solvers), *map(sb.load_teacher, registries.teachers)]
    there = processes.elsewhere(subjects)
    for subject, keys in zip(subjects, there, strict=True):
        assert keys == processes.keys(subject)
        assert keys


@pytest.mark.parametrize("name", [*registries.teachers, "shapes:guidance=2"])
def test_a_teacher_conforms(name):
    for check in conformance.checks(sb.load_teacher(name)):
        if check.name != "teacher_key":
            check()
