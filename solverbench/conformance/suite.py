"""The suite: which checks apply to a solver, a teacher or an extractor, and functions to run them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

from torch import Tensor

from solverbench import plugins, registries
from solverbench.conformance import (
    accuracy,
    declarations,
    denoising,
    features,
    learning,
    loops,
    one_step,
    orders,
    processes,
)
from solverbench.conformance.one_step import Known
from solverbench.conformance.trials import Failed
from solverbench.errors import LoopError
from solverbench.method.schedules import EDM, NoiseSchedule
from solverbench.method.solver import Solver
from solverbench.metrics.extractors.plugin import Extractor, Plugged
from solverbench.teachers.teacher import Teacher

PASS, FAIL, UNDECLARED = "pass", "fail", "not declared"


class ConformanceError(AssertionError):
    """A failed check of a solver, teacher or extractor: one line with subject, check, finding and remedy."""


class Outcome(NamedTuple):
    """The outcome of a check; `finding` says what was found and, on failure, what to do."""

    subject: str
    name: str
    status: str
    finding: str

    @property
    def passed(self) -> bool:
        """Whether the check did not fail."""
        return self.status != FAIL

    @property
    def line(self) -> str:
        """The outcome as one line, without the status."""
        return f"{self.subject}: {self.name}: {self.finding}"


@dataclass(frozen=True)
class Check:
    """One check of one solver, teacher or extractor; call it to run it.

    Args:
        name: name of the check, one word.
        subject: the solver, teacher or extractor.
        run: function that returns the finding or raises `Failed`.
        undeclared: reason why there is nothing to check; empty if there is something.
    """

    name: str
    subject: Solver | Teacher | Plugged
    run: Callable[[], str]
    undeclared: str = ""

    @property
    def label(self) -> str:
        """The subject's label: a solver's spec, the name of a teacher or an extractor."""
        return self.subject.spec if isinstance(self.subject, Solver) else self.subject.name

    def __call__(self) -> str:
        """Run the check and return the finding; any exception other than `Failed` passes through.

        Raises:
            ConformanceError: the subject fails the check.
        """
        try:
            return self.run()
        except Failed as error:
            raise ConformanceError(f"{self.label}: {self.name}: {error}") from error.__cause__

    def outcome(self) -> Outcome:
        """Run the check and return its outcome; any exception counts as a failure."""
        if self.undeclared:
            return Outcome(self.label, self.name, UNDECLARED, self.undeclared)
        try:
            return Outcome(self.label, self.name, PASS, self.run())
        except Failed as error:
            return Outcome(self.label, self.name, FAIL, str(error))
        except LoopError as error:
            return Outcome(self.label, self.name, FAIL, error.without(self.label))
        except (Exception, SystemExit) as error:  # whatever a plugin raises
            return Outcome(self.label, self.name, FAIL, f"{self._blame(error)}; fix it there")

    def _blame(self, error: BaseException) -> str:
        """Return an error's text with its line in the subject's code, or else with the subject's location."""
        thing = self._definition
        module = str(getattr(thing, "__module__", None) or type(thing).__module__)
        said = registries.why(error, module)
        return said if registries.place(error, module) else f"{registries.origin(thing)}: {said}"

    @property
    def _definition(self) -> object:
        """The definition of the subject: a class, a teacher's loader, or its network."""
        if isinstance(self.subject, Plugged):
            return type(self.subject.made)
        if not isinstance(self.subject, Teacher):
            return type(self.subject)
        return registries.teachers.get(self.subject.base) if processes.loadable(self.subject) else self.subject.denoise

    def __str__(self) -> str:
        return self.name


Subject = Solver | type[Solver] | Teacher | Plugged | Extractor | type[Extractor]


def checks(subject: Subject, schedule: NoiseSchedule | None = None, images: Tensor | None = None) -> list[Check]:
    """Return the checks that apply to `subject`, for use in your own test:

        @pytest.mark.parametrize("check", checks(Mine()), ids=str)
        def test_mine(check):
            check()

    Args:
        subject: a solver, a solver class (instantiated with its defaults), a teacher, or an extractor or its class,
            which is registered. Other options need checks of other instances. A learned solver without parameters is
            checked with slightly perturbed initial ones.
        schedule: the noise schedule for a solver; EDM() if not given. A teacher has its own.
        images: real images [n, *shape] on [-1, 1] for a teacher, which its predictions are compared with; its own
            real images or its samples if not given.
    """
    return [check for check in _all(subject, schedule, images) if not check.undeclared]


def run_all(subject: Subject, schedule: NoiseSchedule | None = None, images: Tensor | None = None) -> Iterator[Outcome]:
    """Yield the outcome of every check, including undeclared ones; any exception counts as a failure.

    A finding shared by several failed checks is given once; the others refer to the first of them.
    """
    told: dict[str, str] = {}
    for check in _all(subject, schedule, images):
        found = check.outcome()
        if not found.passed and told.setdefault(found.finding, found.name) != found.name:
            found = found._replace(finding=f"the same as {told[found.finding]}")
        yield found


def assert_conforms(subject: Subject, schedule: NoiseSchedule | None = None, images: Tensor | None = None) -> None:
    """Run all checks.

    Raises:
        ConformanceError: some checks fail; the text has one line for each.
    """
    failed = [outcome.line for outcome in run_all(subject, schedule, images) if not outcome.passed]
    if failed:
        raise ConformanceError("\n".join(failed))


def _all(subject: Subject, schedule: NoiseSchedule | None, images: Tensor | None) -> list[Check]:
    found = subject() if isinstance(subject, type) else subject
    if isinstance(found, Extractor):
        plugins.register(type(found))
        found = Plugged(found)
    if isinstance(found, Plugged):
        return [Check(function.__name__, found, partial(function, found)) for function in _EXTRACTOR]
    if isinstance(found, Teacher):
        return [
            Check(function.__name__, found, partial(function, found), "" if applies(found) else reason)
            for function, applies, reason in _TEACHER
        ] + [
            Check(function.__name__, found, partial(_judged, function, found, images), "" if applies(found) else reason)
            for function, applies, reason in _ACCURACY
        ]
    chosen = schedule or EDM()
    own = cache(lambda: loops.OwnRuns(_copied(found), chosen))
    shared = {function: partial(_shared, function, own) for function in (loops.nfe, loops.finite)}
    return [
        Check(
            function.__name__,
            found,
            shared.get(function) or partial(_fresh, function, found, chosen),
            "" if applies(found) else reason,
        )
        for function, applies, reason in _SOLVER
    ]


def _fresh(function: Callable[[Solver, NoiseSchedule], str], solver: Solver, schedule: NoiseSchedule) -> str:
    """Run a check on a copy of the solver, so that it sees no state kept from another check."""
    return function(_copied(solver), schedule)


def _shared(function: Callable[[loops.OwnRuns], str], own: Callable[[], loops.OwnRuns]) -> str:
    """Run a check on the runs that it shares with others."""
    return function(own())


def _copied(solver: Solver) -> Solver:
    """Return a copy of the solver, or itself if it can't be copied: an instance may hold anything."""
    try:
        return copy.deepcopy(solver)
    except Exception:
        return solver


def _judged(function: Callable[[Teacher, Known], str], teacher: Teacher, images: Tensor | None) -> str:
    """Run a check of predictions on the given images, or on those that the teacher has or makes."""
    return function(teacher, one_step.known(teacher, images))


def _always(subject: object) -> bool:
    return True


def _learned(solver: Solver) -> bool:
    return solver.learned


_UNTRAINED = "it has nothing to train"

_SOLVER: list[tuple[Callable[..., str], Callable[[Solver], bool], str]] = [
    (declarations.documented, _always, ""),
    (declarations.options, _always, ""),
    (declarations.spec_round_trip, _always, ""),
    (declarations.representable, _always, ""),
    (loops.nfe, _always, ""),
    (loops.linear, _always, ""),
    (loops.finite, _always, ""),
    (loops.scrambled, _always, ""),
    (loops.last_level, _always, ""),
    (loops.dtype, _always, ""),
    (loops.device, _always, ""),
    (loops.inputs, _always, ""),
    (loops.randomness, _always, ""),
    (loops.batch, _always, ""),
    (loops.repeatable, _always, ""),
    (loops.detached, _always, ""),
    (loops.consistent, lambda solver: solver.consistent, "it declares consistent = False"),
    (loops.level_gradients, _always, ""),
    (learning.parameters, _learned, _UNTRAINED),
    (learning.parameter_gradients, _learned, _UNTRAINED),
    (learning.wrong_parameters, _learned, _UNTRAINED),
    (learning.saved, _learned, _UNTRAINED),
    (learning.recipe, learning.trainable, "nothing to train, no recipe (trained_by), or not registered"),
    (orders.local_order, lambda solver: solver.local_order is not None, "set local_order to have it measured"),
    (
        orders.predicted_order,
        lambda solver: solver.predicted_order is not None and solver.block == 1,
        "set predicted_order to have it measured",
    ),
    (orders.global_order, lambda solver: solver.global_order is not None, "set global_order to have it measured"),
    (processes.cell_key, processes.findable, "it is defined where no other process can find it: not in a .py file"),
]
"""Every check of a solver: (function, whether it applies to a solver, reason if it does not).

A function takes a fresh copy of the solver and the schedule; those of `loops.OwnRuns` take the runs that they share.
"""

_TEACHER: list[tuple[Callable[[Teacher], str], Callable[[Teacher], bool], str]] = [
    (denoising.identity, _always, ""),
    (denoising.schedule, _always, ""),
    (denoising.sampler, _always, ""),
    (denoising.form, _always, ""),
    (denoising.finite, _always, ""),
    (denoising.small_noise, _always, ""),
    (denoising.removes_noise, _always, ""),
    (denoising.batch, _always, ""),
    (denoising.repeatable, _always, ""),
    (denoising.inputs, _always, ""),
    (denoising.randomness, _always, ""),
    (denoising.detached, _always, ""),
    (denoising.state_gradient, _always, ""),
    (denoising.level_gradient, _always, ""),
    (denoising.conditions, lambda teacher: teacher.bind is not None, "it has no condition (bind)"),
    (denoising.double, lambda teacher: teacher.double is not None, "it has no network in float64 (double)"),
    (denoising.decode, lambda teacher: teacher.decode is not None, "its final states are images (no decode)"),
    (processes.teacher_key, processes.findable, "it has no registered name by which another process can load it"),
    (denoising.move, lambda teacher: teacher.move is not None, "it can't be moved to another device (move)"),
]
"""Every check of a teacher: (function, whether it applies to a teacher, reason if it does not)."""

_EXTRACTOR: list[Callable[[Plugged], str]] = [
    features.documented,
    features.identity,
    features.vectors,
    features.batch,
    features.repeatable,
    features.inputs,
    features.distinguishes,
]
"""Every check of a feature extractor."""

_GUIDED = "guidance moves its predictions away from the mean of the images"

_ACCURACY: list[tuple[Callable[[Teacher, Known], str], Callable[[Teacher], bool], str]] = [
    (accuracy.error, accuracy.unguided, _GUIDED),
    (accuracy.growth, accuracy.unguided, _GUIDED),
    (accuracy.bias, accuracy.unguided, _GUIDED),
    (accuracy.size, accuracy.unguided, _GUIDED),
    (accuracy.span, accuracy.on_pixels, "its final states aren't images (decode), or it is guided"),
    (accuracy.channels, accuracy.coloured, "it has no three channels of colour, or it is guided"),
]
"""Every check of a teacher's predictions on images, in the same form."""
