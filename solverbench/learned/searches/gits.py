"""GITS: the cheapest path of Euler steps through the teacher's own states, by dynamic programming.

Source: Chen et al. 2024, arXiv:2405.11326, section 3.3. With tau_0 > ... > tau_M the candidates, X_i the teacher's
states and e_i its slopes there, a step from i to j lands at Y = X_i + (tau_j - tau_i) e_i, which costs

    dev   :  mean of dev(Y) - dev(X_j), dev = distance to the straight line through X_0 and X_M; may be negative
    l2, l1:  mean of |Y - X_j|

and the cheapest path of k steps from i costs V[i][k] = min_j C[i][j] + discount V[j][k-1], V[i][1] = C[i][M].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from solverbench.learned.searches.pilot import Trajectories


def costs(found: Trajectories, cost: str, *, afs: bool = False) -> Tensor:
    """Return the summed costs [M, M+1] float64 of the steps i -> j over a batch; infinite for j <= i.

    Args:
        found: the teacher's trajectories of B noises.
        cost: dev, l2 or l1.
        afs: whether the first step uses the slope X_0 / sqrt(1 + tau_0^2), which costs no call.
    """
    levels, states = found.levels, found.states.double()
    slopes, count = found.slopes.double(), len(found.levels) - 1
    outputs = found.outputs.double()
    if afs:
        first = states[0] / float((1 + levels[0] ** 2).sqrt())
        slopes = torch.cat([first[None], slopes[1:]])
        outputs = torch.cat([(states[0] - levels[0].item() * first)[None], outputs[1:]])
    table = torch.full((count, count + 1), math.inf, dtype=torch.float64)
    chord = states[-1] - states[0]
    along = chord / chord.norm(dim=1, keepdim=True).clamp(min=1e-300)
    own = _deviation(states, states[0], along)
    for i in range(count):
        later = levels[i + 1 :].to(states.device)[:, None, None]
        landed = outputs[i] + later * slopes[i]  # X_i - tau_i e_i is the output
        if cost == "dev":
            each = _deviation(landed, states[0], along) - own[i + 1 :]
        else:
            each = (landed - states[i + 1 :]).norm(p=1 if cost == "l1" else 2, dim=2)
        table[i, i + 1 :] = each.sum(1).cpu()
    return table


def _deviation(points: Tensor, start: Tensor, along: Tensor) -> Tensor:
    """Return the distances [K, B] of points [K, B, D] from the lines through `start` [B, D] in direction `along`."""
    offset = points - start
    across = offset - (offset * along).sum(2, keepdim=True) * along
    found: Tensor = torch.linalg.vector_norm(across, dim=2)
    return found


def paths(table: Tensor, most: int, discount: float) -> list[list[int]]:
    """Return the cheapest path from 0 to M of 1, 2, .. `most` steps: indices, both ends included.

    Args:
        table: [M, M+1], cost of the step i -> j; infinite for j <= i.
        most: at most M.
        discount: factor on the cost of what follows a step.
    """
    count = len(table)
    value, choices = table[:, count].clone(), list[Tensor]()
    for _ in range(1, most):
        ahead = table[:, :count] + discount * value  # [i, j]
        value, chosen = ahead.min(1)
        choices.append(chosen)
    return [_path(choices[:steps], count) for steps in range(most)]


def _path(choices: Sequence[Tensor], count: int) -> list[int]:
    path = [0]
    for chosen in reversed(choices):
        path.append(int(chosen[path[-1]]))
    return [*path, count]
