"""The choice itself: candidates, their race, the measurement on fresh seeds, and the answer's files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from solverbench import files
from solverbench.bench.progress import Listener, Silent
from solverbench.choice import answer, candidates, fresh, usage
from solverbench.choice.answer import Recommendation
from solverbench.choice.race import RACE, Race, useless
from solverbench.errors import BudgetError, TrainingError, UserError
from solverbench.learned import recipes, trained_files
from solverbench.learned.training import train as training
from solverbench.method import spec
from solverbench.metrics import table
from solverbench.sampling import convergence
from solverbench.sampling.convergence import Measurement
from solverbench.sampling.devices import pool
from solverbench.sampling.sample import SampleError
from solverbench.store.folder import Store
from solverbench.teachers.convergence import unconverged
from solverbench.teachers.teacher import Teacher

FRESH = 0.2
"""Smallest share of the time that is kept for fresh seeds if solvers are trained."""

MEASURED, FEWEST = 0.2, 4
"""Largest share of the calls for the error of the reference, and the fewest images that it is measured on."""

TRAINED = ("gs", "s4s_alt", "ld3:mode=time")
"""Solvers that the time left goes to, the most promising first."""


def choose(
    teacher: Teacher,
    nfe: str | int | Sequence[int],
    *,
    out: Path,
    calls: int | None = None,
    seconds: float | None = None,
    by: str = table.ALWAYS,
    solvers: str | None = None,
    train: bool = False,
    exports: Sequence[str] = ("py",),
    tell: Listener | None = None,
) -> Recommendation:
    """Return the best solver for each number of calls on a teacher, measured on seeds that the choice has not seen.

    Candidates race on validation seeds by their paired error to the teacher's own sampler (`Race`). The leaders are
    measured again on fresh seeds beside Euler's method and the pipeline's own scheduler. The same call resumes.

    Args:
        nfe: numbers of calls.
        out: results folder.
        calls: network calls times images that all of it may spend; None for no limit.
        seconds: time that it may take; None for no limit.
        by: metric that chooses between the leaders of the race.
        solvers: specs to choose from; if None, the built-in solvers on all grids, and trained ones at hand.
        train: whether the time left goes to training learned solvers, which then race too.
        exports: kinds of exports of each pick, of `usage.KINDS`.
        tell: listener of searches, of the race (`say`) and of the run.

    Raises:
        UserError: bad arguments; a limit that is too low; no candidate; a reference that diverges or isn't converged.
    """
    begun = time.monotonic()
    usage.check_kinds(exports)
    _check(calls, seconds, train)
    tell = tell or Silent()
    budgets = spec.calls(nfe)
    if by in table.TABLE and not table.TABLE[by].ranked:
        raise UserError(asked=f"by {by}", wrong="none of its values is better", remedy="choose by another metric")
    Store.open(out)
    teacher, measuring_calls = _converged(teacher, out, calls)
    calls = None if calls is None else calls - measuring_calls
    field = candidates.gather(teacher, budgets, out, tell, solvers=solvers, calls=calls)
    told = f"{len(field.candidates)} candidates at {', '.join(map(str, sorted(budgets)))} calls"
    tell.say(f"{told}; the race goes by RMSE to {teacher.sampler} with {teacher.sampler_nfe} calls")
    asked = {
        "teacher": teacher.ode,
        "condition": repr(teacher.condition),
        "sampler": [teacher.sampler, teacher.sampler_nfe],
        "candidates": [each.cell.address for each in field.candidates],
        "limits": [calls, seconds],
    }
    named = "-".join(map(str, sorted(budgets)))
    folder = out / "recommendations" / f"{teacher.model}-nfe-{named}-{files.digest(asked)[:8]}"
    limit = None if calls is None else int(RACE * calls) - field.searched
    late = time.monotonic() - begun
    race = Race(
        teacher, field.candidates, out, folder / "race.json", calls=limit,
        seconds=None if seconds is None else RACE * seconds - late,
        gone=late if limit is None else field.searched + RACE * measuring_calls, say=tell.say,
    )  # fmt: skip
    with pool(1) as threads:
        running = threads.submit(race.run)
        try:
            running.result()
        except BaseException:  # Ctrl-C among them: the round in work ends at its next batch
            race.stop.set()
            raise
    spent = None if calls is None else calls - field.searched
    learned: list[str] = []
    if train and seconds is not None:
        kept = max(FRESH * seconds, fresh.least(race))
        learned = _trained(race, teacher, out, seconds - kept - (time.monotonic() - begun), tell)
    left = None if seconds is None else max(seconds - (time.monotonic() - begun), FRESH * seconds)
    samples = fresh.affordable(race, spent, left)
    tell.say(f"measuring the leaders on {samples} fresh seeds")
    result, picks = fresh.measured(race, out, tell, by=by, samples=samples, also=learned)
    found = answer.answered(race, field, result, picks, by, folder, exports)
    answer.written(found, teacher, out, exports)
    return found


class _Late(Exception):
    """The time for training is over."""


def _trained(race: Race, teacher: Teacher, out: Path, seconds: float, tell: Listener) -> list[str]:
    """Train solvers until the time is over, the most calls first; return the specs of those that were finished.

    An unfinished training keeps its checkpoint: `solverbench train` with the same --out goes on from it.
    """
    deadline, found = time.monotonic() + seconds, dict[str, None]()
    pairs = training.Shared(_until(teacher, deadline), out)

    def progress(iteration: int, total: int, loss: float, validation: float | None) -> None:
        if time.monotonic() > deadline:
            raise _Late

    for name in TRAINED:
        solver = trained_files.learned(name)
        for nfe in sorted(race.budgets, reverse=True):
            if any(each.candidate.spec == name and each.candidate.nfe == nfe for each in race.runners):
                continue  # a trained file was at hand
            try:
                recipe = replace(recipes.chosen(solver, teacher), training_seeds=1)
                tell.say(f"training {name} at {nfe} calls, {max(deadline - time.monotonic(), 0):.0f} s left")
                about = solver, nfe, teacher, recipe
                training.train_best(*about, out=out, device=teacher.device, progress=progress, data=pairs.of(recipe))
            except _Late:
                tell.note(f"the time for training is over: {name} at {nfe} calls is not finished and takes no part")
                return list(found)
            except (TrainingError, BudgetError) as error:
                tell.note(f"{name} at {nfe} calls takes no part: {error}")
            else:
                found[name] = None
    return list(found)


def _until(teacher: Teacher, deadline: float) -> Teacher:
    """Return the teacher; its calls raise `_Late` once the monotonic clock is past `deadline`."""

    def checked(denoise: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def called(x: Tensor, sigma: Tensor) -> Tensor:
            if time.monotonic() > deadline:
                raise _Late
            return denoise(x, sigma)

        return called

    bind = teacher.bind
    bound = None if bind is None else lambda chosen: checked(bind(chosen))
    return replace(teacher, denoise=checked(teacher.denoise), bind=bound)


def _check(calls: int | None, seconds: float | None, train: bool) -> None:
    if calls is not None and calls < 1:
        raise UserError(asked=f"calls {calls}", wrong="not a positive number", remedy="give some, as in 200000")
    if seconds is not None and not seconds > 0:
        raise UserError(asked=f"time {seconds:g} s", wrong="not above 0", remedy="give some, as in 15m")
    if train and seconds is None:
        raise UserError(asked="train", wrong="needs a limit on the time", remedy="give one, as in --time 30m")


def _converged(teacher: Teacher, out: Path, calls: int | None) -> tuple[Teacher, int]:
    """Return the teacher with the error of its sampler, the reference of the race, and the network calls for that.

    Args:
        calls: network calls of the whole choice. The error is measured on fewer images if it would take too many.

    Raises:
        UserError: the reference isn't converged, so that a small difference between candidates would mean nothing, or
            it can't be made.
    """
    whole = Measurement(teacher, out)
    shipped = convergence.shipped(teacher, whole.plan) is not None
    cost = 0 if shipped else sum(whole.calls(each) for each in whole.every)
    if calls is not None and cost > MEASURED * calls:
        images = max(FEWEST, int(len(whole.seeds) * MEASURED * calls / cost))
        whole = Measurement(teacher, out, images=min(images, len(whole.seeds)))
        cost = sum(whole.calls(each) for each in whole.every)
    try:
        told = convergence.measure(teacher, out, images=len(whole.seeds))
    except SampleError as error:
        raise useless(teacher, f"can't be used: {error.wrong}") from error
    if told.rough:
        assert told.error is not None
        rough = unconverged(teacher.shown, teacher.sampler_nfe, told.error)
        raise UserError(asked=rough["asked"], wrong=rough["wrong"], remedy=rough["remedy"])
    return replace(teacher, sampler_error=told), cost
