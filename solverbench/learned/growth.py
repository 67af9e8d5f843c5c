"""From a solver trained for some calls to the start of a training for more: numbers interpolated over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def resampled(values: Tensor, count: int) -> Tensor:
    """Return `count` numbers interpolated linearly over the relative position of `values` [n], whose ends are kept.

    Levels that fall still fall. A single number is repeated.
    """
    places = torch.linspace(0, len(values) - 1, count, dtype=torch.float64)
    left = places.floor().long().clamp(max=max(len(values) - 2, 0))
    right = (left + 1).clamp(max=len(values) - 1)
    share = places - left
    return values[left] * (1 - share) + values[right] * share


def resampled_steps(rows: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Return a row of numbers for each step, of the given sizes, interpolated over the steps of `rows`.

    The i-th numbers of all rows that are so long are a column; it is interpolated over the new rows that are so long. A
    column that no old row has is 0.
    """
    made = [torch.zeros(size, dtype=torch.float64) for size in sizes]
    for i in range(max(sizes)):
        held = [row[i] for row in rows if len(row) > i]
        wanted = [row for row in made if len(row) > i]
        if held:
            for row, value in zip(wanted, resampled(torch.stack(held), len(wanted)), strict=True):
                row[i] = value
    return made


def resampled_changes(
    trained: Mapping[str, Tensor], before: Mapping[str, Tensor], initial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights for more steps: their untrained values, plus what training changed, interpolated over the steps.

    Args:
        trained: the weights, named by a letter and the step from 0, as in b0, b1, ..
        before: the untrained weights on the same levels, of the same names and shapes.
        initial: the untrained weights for more steps.
    """
    made: dict[str, Tensor] = {}
    for letter in dict.fromkeys(name[0] for name in initial):
        names = [name for name in initial if name[0] == letter]
        changes = [trained[name] - before[name] for name in trained if name[0] == letter]
        grown = resampled_steps(changes, [len(initial[name]) for name in names])
        made |= {name: initial[name] + change for name, change in zip(names, grown, strict=True)}
    return made
