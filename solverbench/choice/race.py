"""A race between candidates: paired errors on more and more images; what is beaten drops out.

Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) with a test: after each round a candidate drops out if
its error is above the leader's beyond a one-sided interval, or if it isn't in the first half by its error. All
candidates see the same noise, so differences are paired, and calls that several plans share are made once. Pruners of
hyper-parameter libraries compare values that aren't paired, one trial at a time, and can share no calls.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from solverbench import files, seeds
from solverbench.bench.cells import reason
from solverbench.bench.statistics import SQUARE
from solverbench.choice.candidates import Candidate
from solverbench.errors import RecordError, UserError
from solverbench.learned import recipes
from solverbench.method import prefixes
from solverbench.method.prefixes import Call
from solverbench.method.tableau import Plan
from solverbench.sampling import endpoints
from solverbench.sampling.sample import BATCH, BatchLimit, Cancel, SampleError, decoded, samples
from solverbench.teachers.teacher import Teacher

SEEDS = range(recipes.VALIDATION.start + 5000, recipes.VALIDATION.stop)
"""Noise seeds of a race: validation seeds of which the shipped solvers' trainings have seen none."""

FIRST, LEAST, MOST = 8, 4, 1024
"""Images of the first round, the fewest that one may have, and of all rounds together."""

KEPT = 4
"""Candidates of each budget that halving never drops; only the test does."""

RACE = 0.6
"""Share of the limit of a choice that the race may spend; the rest is for fresh seeds."""

NOT_TRIED = "not tried: the limit is too low"

LEVEL = 0.05
"""Probability that the best candidate of a budget is dropped by a test in any round."""

Array = NDArray[np.float64]


@dataclass
class Spent:
    """What a race has spent: network calls times images, seconds, and images."""

    calls: int = 0
    seconds: float = 0.0
    images: int = 0


@dataclass(eq=False)
class Runner:
    """A candidate in the race.

    Args:
        candidate: what runs.
        errors: mean squared error of each image to the reference, on [-1, 1].
        out: why it dropped out; empty while it runs.
    """

    candidate: Candidate
    errors: list[float] = field(default_factory=list)
    out: str = ""

    @property
    def rmse(self) -> float:
        """The root of the mean error; infinite without images."""
        return math.sqrt(np.mean(self.errors)) if self.errors else math.inf


class Race:
    """The race of all budgets on one teacher, whose rounds are kept in a file.

    Args:
        teacher: the model; its own sampler's images are the reference.
        candidates: what runs, the most promising first.
        out: results folder.
        path: file of the rounds; those in it are not computed again.
        calls: network calls times images that the race may spend, the reference's included; None for no limit.
        seconds: time that it may take, over all sessions; None for no limit.
        gone: what the choice has spent of its limit before the race, in calls, or in seconds if there is no limit on
            calls; for the message of a limit that is too low.
        say: callback for a line after each round.
    """

    def __init__(
        self,
        teacher: Teacher,
        candidates: Sequence[Candidate],
        out: Path,
        path: Path,
        *,
        calls: int | None,
        seconds: float | None,
        gone: float = 0.0,
        say: Callable[[str], None],
    ) -> None:
        self.teacher, self.out, self.path = teacher, out, path
        self.calls, self.seconds, self.gone, self.say = calls, seconds, gone, say
        self.goal = endpoints.sampler_plan(teacher)
        self.runners = [Runner(each) for each in candidates]
        self.budgets = sorted({each.nfe for each in candidates})
        self.rounds: list[dict[str, Any]] = _read(path)
        self.spent = Spent()
        self.pace = 0.0
        self.stop = Cancel()

    def run(self) -> None:
        """Run all rounds that the limits allow; call it from a worker, which `stop` ends.

        Raises:
            Cancelled: it was stopped.
            UserError: the limit is too low for one round; the reference diverges.
        """
        number = 0
        while (alive := self._alive()) and self.spent.images < MOST:
            size = FIRST if not number else self.spent.images  # as many as before: each round doubles them
            known = self.rounds[number] if number < len(self.rounds) else None
            if known is None:
                size = self._affordable(alive, size, first=not number)
                if not size:
                    break
                known = self._round(alive, size)
                self.rounds = [*self.rounds[:number], known]
                files.write_json(self.path, {"rounds": self.rounds})
            self._take(alive, known)
            number += 1
            self._decide(number)

    def ranked(self, nfe: int) -> list[Runner]:
        """Return a budget's runners: those left first, then those that saw the most images, each by its error."""
        own = [each for each in self.runners if each.candidate.nfe == nfe]
        return sorted(own, key=lambda each: (bool(each.out), -len(each.errors), each.rmse))

    def _alive(self) -> list[Runner]:
        """Return the runners of all budgets at which more than one is left; before the first round, all."""
        left = [each for each in self.runners if not each.out]
        counts = Counter(each.candidate.nfe for each in left)
        racing = [each for each in left if counts[each.candidate.nfe] > 1]
        return racing if racing or self.spent.images else left

    def _cost(self, alive: Sequence[Runner]) -> int:
        """Return the network calls for one image."""
        made = (prefixes.grow([each.candidate.plan for each in part]).needed for part in _parts(alive))
        return self.teacher.sampler_nfe + sum(made)

    def _affordable(self, alive: list[Runner], size: int, *, first: bool) -> int:
        """Return the number of images of the next round, 0 if none fits; a first round drops candidates to fit.

        Raises:
            UserError: not even two candidates of each budget fit.
        """
        if first:
            size = self._fitted(alive)
        cost = size * self._cost(alive)
        fits = self.calls is None or self.spent.calls + cost <= self.calls
        soon = self.spent.seconds + cost * self.pace
        return size if fits and (self.seconds is None or soon <= self.seconds) else 0

    def _fitted(self, alive: list[Runner]) -> int:
        """Drop the least promising candidates until the first round takes half of the limit, the smallest all of it."""
        limit = self.calls
        if limit is None and self.seconds is not None:
            self.pace = self._probe(alive[0])
            limit = int(self.seconds / self.pace)
        if limit is None:
            return FIRST
        tried = [(size, share, limit / 2) for size in (FIRST, LEAST) for share in (1.0, 0.5, 0.25, 0.1)]
        for size, share, most in [*tried, (LEAST, 0.0, limit)]:
            kept = [each for nfe in self.budgets for each in self._first(alive, nfe, share)]
            least = size * self._cost(kept)
            if least <= most:
                for each in alive:
                    if each not in kept:
                        each.out = NOT_TRIED
                alive[:] = kept
                return size
        timed = self.calls is None
        asked = f"the race's {RACE:.0%} of the time" if timed else f"the race's {RACE:.0%} of the calls, {limit}"
        needed = math.ceil(((least * self.pace if timed else least) + self.gone) / RACE)
        enough = f"{needed} s" if timed else f"{needed} calls"
        raise UserError(
            asked=asked,
            wrong=f"too little for the smallest race, which takes {least} network calls",
            remedy=f"give {enough} or more, or ask for fewer numbers of calls",
        )

    def _first(self, alive: Sequence[Runner], nfe: int, share: float) -> list[Runner]:
        own = [each for each in alive if each.candidate.nfe == nfe]
        return own[: max(2, math.ceil(share * len(own)))]

    def _probe(self, runner: Runner) -> float:
        """Return the seconds per call and image, from one candidate on a few images."""
        begun, chosen = time.perf_counter(), SEEDS[:LEAST]
        for _ in _sampled(self.teacher, [runner.candidate.plan], chosen, self.stop):
            pass
        return (time.perf_counter() - begun) / (runner.candidate.nfe * len(chosen))

    def _round(self, alive: Sequence[Runner], size: int) -> dict[str, Any]:
        """Return the errors of new images: a plain record for the file."""
        begun, first = time.perf_counter(), SEEDS.start + self.spent.images
        errors, failed = self.errors(alive, range(first, first + size))
        seconds = round(time.perf_counter() - begun, 3)
        return {"first": first, "images": size, "calls": size * self._cost(alive), "seconds": seconds,
                "errors": errors, "failed": failed}  # fmt: skip

    def errors(self, runners: Sequence[Runner], chosen: range) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Return the squared error of each image of each runner, and why others failed, by `Candidate.key`."""
        wanted = self._reference(chosen)
        errors: dict[str, list[float]] = {}
        failed: dict[str, str] = {}
        for part in _parts(runners):
            for place, found in _sampled(self.teacher, [each.candidate.plan for each in part], chosen, self.stop):
                self.stop.check()
                key = part[place].candidate.key
                if isinstance(found, Exception):
                    failed[key] = reason(found)
                    continue
                apart = decoded(self.teacher, found, BatchLimit(BATCH)).float() - wanted
                errors[key] = [float(each) for each in apart.square().flatten(1).mean(1)]
            self.stop.check()
        return errors, failed

    def _reference(self, chosen: range) -> Tensor:
        """Return the decoded images of the teacher's own sampler.

        Raises:
            UserError: they can't be made, or lie far out of the range of images.
        """
        try:
            states = endpoints.piece(self.teacher, self.goal, chosen, self.out, stop=self.stop).to(self.teacher.device)
        except SampleError as error:
            raise useless(self.teacher, f"can't be used: {error.wrong}") from error
        images = decoded(self.teacher, states, BatchLimit(BATCH)).float()
        square = float(images.square().mean())
        if self.teacher.decode is None and square > SQUARE:
            raise useless(self.teacher, f"diverge: their mean square is {square:.3g}, of images at most 1")
        return images

    def _take(self, alive: Sequence[Runner], known: Mapping[str, Any]) -> None:
        """Add a round's errors."""
        for each in alive:
            key = each.candidate.key
            if key in known["errors"]:
                each.errors += known["errors"][key]
            else:
                each.out = f"failed: {known['failed'][key]}" if key in known["failed"] else NOT_TRIED
        self.spent.calls += known["calls"]
        self.spent.seconds += known["seconds"]
        self.spent.images += known["images"]
        self.pace = self.spent.seconds / self.spent.calls

    def _decide(self, number: int) -> None:
        """Drop what is beaten at each budget, and say who leads."""
        told = []
        for nfe in self.budgets:
            own = [each for each in self.runners if each.candidate.nfe == nfe and not each.out]
            if not own:
                raise UserError(
                    asked=f"nfe={nfe}",
                    wrong=f"every candidate failed: {self.ranked(nfe)[0].out}",
                    remedy="check the teacher with 'solverbench check'",
                )
            started = sum(each.candidate.nfe == nfe for each in self.runners)
            order = beaten([each.errors for each in own], started)
            if len(own) > 1:
                for place, why in order.items():
                    own[place].out = f"{why} after {len(own[place].errors)} images"
            left = [each for each in own if not each.out]
            best = min(left, key=lambda each: each.rmse)
            told.append(f"nfe={nfe}: {len(left)} left, {best.candidate.spec} leads, RMSE {best.rmse:.3g}")
        self.say(f"round {number}, {self.spent.images} images: " + "; ".join(told))


def useless(teacher: Teacher, why: str) -> UserError:
    """Return the error of a reference that nothing can be compared with; `why` goes on after its name."""
    return UserError(
        asked=f"teacher {teacher.name}",
        wrong=f"its own samples ({teacher.sampler}, {teacher.sampler_nfe} calls) {why}",
        remedy="check the checkpoint, or give another sampler or more calls (sampler, sampler_nfe)",
    )


def beaten(errors: Sequence[Sequence[float]], started: int) -> dict[int, str]:
    """Return the runners that drop out after a round, as place -> why.

    One is beaten if its mean error is above the leader's by more than Student's one-sided interval of the paired
    difference, at `LEVEL` shared by all candidates and rounds. Of the others the first half stays, and at least
    `KEPT`.

    Args:
        errors: each runner's squared error of each image; the same images for all.
        started: number of candidates at the start.
    """
    table = np.array(errors)
    means = table.mean(1)
    leader, count = int(means.argmin()), table.shape[1]
    rounds = math.log2(MOST / LEAST) + 1
    limit = float(stdtrit(count - 1, 1 - LEVEL / (started * rounds)))
    apart = table - table[leader]
    error = apart.std(1, ddof=1) / math.sqrt(count)
    found = {
        place: "beaten"
        for place in range(len(table))
        if place != leader and means[place] - means[leader] > limit * error[place]
    }
    left = sorted((place for place in range(len(table)) if place not in found), key=lambda place: means[place])
    for place in left[max(KEPT, math.ceil(len(table) / 2)) :]:
        found[place] = "not in the first half"
    return found


def _parts(alive: Sequence[Runner]) -> list[list[Runner]]:
    """Return the runners in groups that are sampled together."""
    plans = [each.candidate.plan for each in alive]
    return [[alive[place] for place in bunch] for bunch in prefixes.bunches(plans, FIRST)]


def _sampled(
    teacher: Teacher, plans: Sequence[Plan], chosen: range, stop: Cancel
) -> Iterator[tuple[int, Tensor | Exception]]:
    """Yield (place in `plans`, final states or the error) of the images with these seeds; nothing more once stopped."""

    def start(part: range) -> tuple[Callable[[Call, Tensor, Tensor], Tensor], Tensor]:
        denoise = teacher.denoiser(part)
        return lambda call, x, sigma: denoise(x, sigma), seeds.noise(part, teacher.shape, teacher.device)

    tree, fit = prefixes.grow(plans), BatchLimit(BATCH)
    for end, found in samples(tree, teacher, chosen, start, lambda end: not stop.is_set(), fit):
        for place in end.plans:
            yield place, found


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the rounds in a race's file; none if there is no file.

    Raises:
        RecordError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        return [
            {
                "first": int(each["first"]),
                "images": int(each["images"]),
                "calls": int(each["calls"]),
                "seconds": float(each["seconds"]),
                "errors": {str(key): [float(value) for value in values] for key, values in each["errors"].items()},
                "failed": {str(key): str(why) for key, why in each["failed"].items()},
            }
            for each in files.read_json(path)["rounds"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(asked=path, wrong=f"damaged ({error})", remedy="delete it and run again") from None
