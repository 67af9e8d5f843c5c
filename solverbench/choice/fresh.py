"""The measurement of a race's winners on fresh seeds: a run, whose noise no decision has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from solverbench.bench import measure
from solverbench.bench import run as runner
from solverbench.bench.outcome import Outcome
from solverbench.bench.progress import Listener
from solverbench.bench.run import RunResult
from solverbench.bench.run_options import RunOptions
from solverbench.choice.candidates import Candidate
from solverbench.choice.defaults import defaults
from solverbench.choice.race import Race
from solverbench.errors import UserError
from solverbench.method import prefixes
from solverbench.method.spec import make
from solverbench.metrics import plugin, table
from solverbench.wording import BELOW_ERROR, bracketed, masked

FEWEST, IMAGES = 20, 1000
"""Images on fresh seeds: the fewest, and as many as there are without a limit."""

MANY = 200
"""Images from which the teacher's own metrics are measured too, of which fewer say little."""


@dataclass(frozen=True)
class Comparison:
    """The pick's value minus another solver's, on the same fresh noise.

    Args:
        role: what the other one is: second, third, plain default, the pipeline's own scheduler, or several of them.
        spec: its spec.
        difference, low, high: pick minus other, with the interval that is corrected for all comparisons of the budget.
        verdict: ahead, level or behind, of the pick; or `wording.BELOW_ERROR`, if the interval doesn't hold 0 but the
            difference is smaller than the error of the reference.
        note: what that error is; empty for another verdict.
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
        itself: what the pick itself is of the defaults; empty if it is none.
    """

    nfe: int
    spec: str
    value: float
    low: float
    high: float
    comparisons: tuple[Comparison, ...]
    front: bool = True
    itself: str = ""


def finalists(race: Race, nfe: int) -> list[Candidate]:
    """Return the candidates of a budget that are measured again: the winner, and two that came after it."""
    return [each.candidate for each in race.ranked(nfe) if each.errors][:3]


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
    metrics = by if by != table.ALWAYS or samples < MANY else None
    options = RunOptions(
        solvers=list(specs), nfe=race.budgets, teachers=race.teacher, samples=samples, replicates=1, metrics=metrics,
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
    others = [spec for spec in known if spec != chosen]
    roles = {spec: [role] for role, spec in zip(("second", "third"), others, strict=False)}
    for role, spec in usual.items():
        asked = there.get(spec) or _same(there, spec)
        if asked is not None and by in asked.measures:
            same = next((each for each in (chosen, *roles) if _equal(there[each], asked)), asked.cell.solver)
            roles.setdefault(same, []).append(role)
    itself = ", ".join(roles.pop(chosen, []))
    comparisons = tuple(_compared(there, chosen, spec, by, len(roles), ", ".join(role)) for spec, role in roles.items())
    measure_ = there[chosen].measures[by]
    return Pick(nfe, chosen, measure_.value, *measure_.interval, comparisons, itself=itself)


def _equal(one: Outcome, other: Outcome) -> bool:
    """Return whether two outcomes are of one plan."""
    return one.cell.plan is not None and other.cell.plan is not None and one.cell.plan.key == other.cell.plan.key


def _same(there: Mapping[str, Outcome], spec: str) -> Outcome | None:
    """Return the outcome of the solver that a spec names, which may stand under another name."""
    wanted = make(spec)
    return next((each for each in there.values() if each.cell.spec == wanted.spec), None)


def _compared(there: Mapping[str, Outcome], chosen: str, other: str, by: str, number: int, role: str) -> Comparison:
    """Return the comparison with one solver; its interval has the level 1 - .05 / `number` (Bonferroni)."""
    a, b = there[chosen], there[other]
    difference, low, high = measure.paired(a.measures[by], b.measures[by], 1 - 0.05 / max(number, 1))
    sign = -1 if plugin.described(by).higher else 1
    error = a.reference_error if by == table.ALWAYS else None
    verdict = "level" if low <= 0 <= high else "ahead" if sign * difference < 0 else "behind"
    note = ""
    if masked(difference, low, high, error):
        verdict, note = BELOW_ERROR, f"the reference's error is {error:.2g}"
    return Comparison(role, other, difference, low, high, verdict, note)


def affordable(race: Race, calls: int | None, seconds: float | None) -> int:
    """Return the number of images on fresh seeds: a multiple of 10 that fits into what the race has left.

    Args:
        calls: network calls of the whole choice; None for no limit.
        seconds: seconds that are left; None for no limit.
    """
    cost = _cost(race)
    limits = [IMAGES]
    if calls is not None:
        limits.append((calls - race.spent.calls) // cost)
    if seconds is not None and race.pace:
        limits.append(int(seconds / (cost * race.pace)))
    return max(min(limits) // 10 * 10, FEWEST)


def least(race: Race) -> float:
    """Return the seconds that the fewest images on fresh seeds take, by the race's pace."""
    return FEWEST * _cost(race) * race.pace


def _cost(race: Race) -> int:
    """Return the network calls for one image on fresh seeds."""
    plans = [each.plan for nfe in race.budgets for each in finalists(race, nfe)]
    extra = sum(race.budgets) * len(defaults(race.teacher))
    crossed = prefixes.grow(plans).needed * len(race.budgets)  # every finalist is measured at every budget
    return race.teacher.sampler_nfe + crossed + extra


def shown(picks: Sequence[Pick], by: str) -> list[str]:
    """Return the table of the picks for a terminal: value and interval, and below them how each compares."""
    words = {"ahead": "ahead of", "level": "level with", "behind": "behind", BELOW_ERROR: f"{BELOW_ERROR} from"}
    rows = [("calls", "pick", f"{by} [95 % interval]", "")]
    for pick in picks:
        itself = f" ({pick.itself})" if pick.itself else ""
        value = bracketed(pick.value, pick.low, pick.high)
        front = "" if pick.front else "no better than a pick with fewer calls"
        rows.append((str(pick.nfe), pick.spec + itself, value, front))
        for each in pick.comparisons:
            interval = bracketed(each.difference, each.low, each.high, "+")
            rows.append(("", f"  {words[each.verdict]} {each.spec} ({each.role})", interval, each.note))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (f"{a:>{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows)
    return [line.rstrip() for line in lines]
