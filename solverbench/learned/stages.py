"""Training stages: the iterations divided into cycles of stages, each of which trains some parameter groups."""

from __future__ import annotations

from itertools import accumulate

from solverbench.errors import SpecError

GROUPS = ("times", "offsets", "coefficients")
"""Groups of a learned solver's parameters: its grid, shifts of the levels told at its calls, and its weights."""

ALL = "all"

Stage = tuple[frozenset[str], float]
"""Parameter groups, and their share of the iterations."""


def parse(text: str) -> list[Stage]:
    """Return the stages written `groups:share,groups:share`, as in `times:2,times+offsets:5`; `all` is every group.

    Raises:
        SpecError: not of that form, an unknown group, or a share that is not above 0.
    """
    return [_stage(text, part.strip()) for part in text.split(",")]


def ends(text: str, cycles: int, iterations: int) -> list[tuple[int, frozenset[str]]]:
    """Return the stages in order, each with its last iteration; iterations are counted from 1."""
    stages = parse(text) * cycles
    whole = sum(share for _, share in stages)
    lasts = [round(iterations * done / whole) for done in accumulate(share for _, share in stages)]
    return [(last, groups) for last, (groups, _) in zip(lasts, stages, strict=True)]


def _stage(text: str, part: str) -> Stage:
    names, colon, share = part.partition(":")
    groups = frozenset(GROUPS if names == ALL else names.split("+"))
    wrong = sorted(groups - set(GROUPS))
    if wrong:
        raise SpecError(
            asked=f"stages={text}",
            wrong=f"{wrong[0]!r} isn't a group of parameters",
            remedy=f"use {', '.join(GROUPS)} or {ALL}",
        )
    try:
        weight = float(share) if colon else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise SpecError(
            asked=f"stages={text}", wrong=f"{share!r} isn't a share of the iterations", remedy="give a number above 0"
        )
    return groups, weight
