"""The measurement of a race's winners on fresh seeds: a run, whose noise no decision has seen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from solverbench import registries
from solverbench.bench import measure
from solverbench.bench import run as runner
from solverbench.bench.outcome import Outcome
from solverbench.bench.progress import Listener
from solverbench.bench.run import RunResult
from solverbench.bench.run_options import RunOptions
from solverbench.choice.candidates import Candidate
from solverbench.choice.race import Race
from solverbench.errors import UserError
from solverbench.method import prefixes
from solverbench.method.spec import make
from solverbench.metrics import plugin, table
from solverbench.teachers.teacher import Teacher

DEFAULT = "euler"
"""The plain default: Euler's method, which is DDIM, on its default grid for the schedule."""

FEWEST, IMAGES = 20, 1000
"""Images on fresh seeds: the fewest, and as many as there are without a limit."""


@dataclass(frozen=True)
class Comparison:
    """The pick's value minus another solver's, on the same fresh noise.

    Args:
        role: what the other one is: second or third in the race, default, or the pipeline's own scheduler.
        spec: its spec.
        difference, low, high: pick minus other, with the interval that is corrected for all comparisons of the budget.
        verdict: ahead, level or behind, of the pick; a difference below the reference's error is level.
        note: why it is level although the interval doesn't hold 0; empty otherwise.
    """

    role: str
    spec: str
    difference: float
    low: float
    high: float
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class Pick:
    """The answer for one number of calls.

    Args:
        nfe: number of calls.
        spec: spec of the solver.
        value, low, high: its metric on fresh seeds, with the 95 % interval.
        comparisons: against the runner-up and the defaults.
        front: whether no pick with fewer calls has a value as good.
    """

    nfe: int
    spec: str
    value: float
    low: float
    high: float
    comparisons: tuple[Comparison, ...]
    front: bool


def finalists(race: Race, nfe: int) -> list[Candidate]:
    """Return the candidates of a budget that are measured again: the winner, and two that came after it."""
    return [each.candidate for each in race.ranked(nfe) if each.errors][:3]


def defaults(teacher: Teacher) -> dict[str, str]:
    """Return the solvers that a pick is compared with, as role -> spec: Euler, and the pipeline's own scheduler."""
    found = {"plain default": DEFAULT}
    own = own_scheduler(teacher)
    return found | ({"the pipeline's own scheduler": own} if own else {})


def own_scheduler(teacher: Teacher) -> str:
    """Return the spec nearest to the scheduler in a pipeline's folder, on its own levels; empty if there is none."""
    path = Path(teacher.base) / "scheduler" / "scheduler_config.json"
    try:
        name = str(json.loads(path.read_text(encoding="utf-8"))["_class_name"])
    except (KeyError, TypeError, ValueError, OSError):
        return ""
    known = [each for each in registries.foreign(name) if each.spec]
    if not known:
        return ""
    spec = re.sub(r":(grid|offset|shift)=[^:]*", "", known[0].spec)
    return f"{spec}:grid=pipeline" if teacher.schedule.calls(4) is not None else known[0].spec


def measured(
    race: Race,
    out: Path,
    tell: Listener,
    *,
    by: str,
    samples: int,
    also: Sequence[str] = (),
) -> tuple[RunResult, list[Pick]]:
    """Return the run of the finalists and defaults on fresh seeds, and the pick of each budget.

    Args:
        by: name of the metric that decides.
        samples: number of images.
        also: specs of solvers trained since, which take part without a race.

    Raises:
        UserError: the metric has no value.
    """
    usual = defaults(race.teacher)
    raced = [each.spec for nfe in race.budgets for each in finalists(race, nfe)]
    specs = dict.fromkeys([*also, *raced, *usual.values()])
    options = RunOptions(
        solvers=list(specs), nfe=race.budgets, teachers=race.teacher, samples=samples, replicates=1,
        device=race.teacher.device, out=str(out),
    )  # fmt: skip
    result = runner.run(options, progress=tell)
    picks: list[Pick] = []
    for nfe in race.budgets:
        there = {each.cell.solver: each for each in result.cells if each.cell.nfe == nfe}
        order = [each for each in also if there[each].measures] + [each.spec for each in finalists(race, nfe)]
        pick = _pick(nfe, order, there, usual, by)
        better = -1 if plugin.described(by).higher else 1
        front = all(better * pick.value < better * other.value for other in picks)
        picks.append(replace(pick, front=front))
    return result, picks


def _pick(nfe: int, order: Sequence[str], there: Mapping[str, Outcome], usual: Mapping[str, str], by: str) -> Pick:
    """Return a budget's pick: the first of the leaders; another one only where it is ahead of it on fresh seeds."""
    known = [spec for spec in order if by in there[spec].measures]
    if not known:
        first = there[order[0]]
        wrong = first.reason or first.failed.get(by, first.cell.lacking.get(by, "it isn't measured for this teacher"))
        raise UserError(asked=f"{by} of {first.cell}", wrong=wrong, remedy="choose by another metric")
    chosen, others = known[0], known[1:]
    for spec in others:
        if _compared(there, chosen, spec, by, len(others), "second").verdict == "behind":
            chosen = spec
    roles = list(zip(("second", "third"), (spec for spec in known if spec != chosen), strict=False))
    equal = there[chosen].cell.plan
    for role, spec in usual.items():
        asked = there.get(spec) or _same(there, spec)
        if asked is not None and by in asked.measures and asked.cell.plan is not None and equal is not None:
            roles += [(role, asked.cell.solver)] if asked.cell.plan.key != equal.key else []
    comparisons = tuple(_compared(there, chosen, spec, by, len(roles), role) for role, spec in roles)
    measure_ = there[chosen].measures[by]
    return Pick(nfe, chosen, measure_.value, *measure_.interval, comparisons, front=True)


def _same(there: Mapping[str, Outcome], spec: str) -> Outcome | None:
    """Return the outcome of the solver that a spec names, which may stand under another name."""
    wanted = make(spec)
    return next((each for each in there.values() if each.cell.spec == wanted.spec), None)


def _compared(there: Mapping[str, Outcome], chosen: str, other: str, by: str, number: int, role: str) -> Comparison:
    """Return the comparison with one solver; its interval has the level 1 - .05 / `number` (Bonferroni)."""
    a, b = there[chosen], there[other]
    difference, low, high = measure.paired(a.measures[by], b.measures[by], 1 - 0.05 / max(number, 1))
    sign = -1 if plugin.described(by).higher else 1
    below = by == table.ALWAYS and abs(difference) < (a.reference_error or 0.0)
    verdict = "level" if below or low <= 0 <= high else "ahead" if sign * difference < 0 else "behind"
    note = f"smaller than the reference's error, {a.reference_error:.2g}" if below and not low <= 0 <= high else ""
    return Comparison(role, other, difference, low, high, verdict, note)


def affordable(race: Race, calls: int | None, seconds: float | None) -> int:
    """Return the number of images on fresh seeds: a multiple of 10 that fits into what the race has left.

    Args:
        calls: network calls of the whole choice; None for no limit.
        seconds: seconds that are left; None for no limit.
    """
    plans = [each.plan for nfe in race.budgets for each in finalists(race, nfe)]
    extra = sum(race.budgets) * len(defaults(race.teacher))
    crossed = prefixes.grow(plans).needed * len(race.budgets)  # every finalist is measured at every budget
    cost = race.teacher.sampler_nfe + crossed + extra
    limits = [IMAGES]
    if calls is not None:
        limits.append((calls - race.spent.calls) // cost)
    if seconds is not None and race.pace:
        limits.append(int(seconds / (cost * race.pace)))
    return max(min(limits) // 10 * 10, FEWEST)


def shown(picks: Sequence[Pick], by: str) -> list[str]:
    """Return the lines of the picks for a terminal: value, interval, and how each compares."""
    words = {"ahead": "ahead of", "level": "level with", "behind": "behind"}
    lines = []
    for pick in picks:
        star = "" if pick.front else ", no better than a pick with fewer calls"
        lines.append(f"{pick.nfe} calls: {pick.spec}, {by} {pick.value:.4g} [{pick.low:.4g}, {pick.high:.4g}]{star}")
        for each in pick.comparisons:
            interval = f"{each.difference:+.3g} [{each.low:+.3g}, {each.high:+.3g}]"
            note = f", {each.note}" if each.note else ""
            lines.append(f"    {words[each.verdict]} {each.spec} ({each.role}): {interval}{note}")
    return lines
