"""OSS: for each candidate level, the Euler step from the student's own states that lands closest to the teacher.

Source: Pei et al. 2025, arXiv:2503.21774, algorithm 1. With X_j the teacher's states at the candidates and
z[0] = {0: X_0},

    z[k][j] = the z[k-1][i] + (tau_j - tau_i) e(z[k-1][i], tau_i), i < j, with the least mean |. - X_j|^2

and the grid of k steps is the path of the chosen i back from (k, M). One state is kept for each (k, j), so from three
steps on it needn't be the best of all grids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solverbench.learned.searches.pilot import Trajectories


def calls(candidates: int, most: int) -> int:
    """Return the denoiser calls for each noise, the teacher's own trajectory included, for up to `most` steps."""
    intervals = candidates - 1
    return intervals + 1 + sum(intervals - k for k in range(1, most))


@torch.no_grad()
def paths(batches: list[Trajectories], most: int) -> list[list[int]]:
    """Return the path from 0 to M of 1, 2, .. `most` steps: indices, both ends included.

    Args:
        batches: the teacher's trajectories of all noises.
        most: at most M.
    """
    levels, count = batches[0].levels.tolist(), len(batches[0].levels) - 1
    kept: list[dict[int, Tensor]] = [{0: each.states[0]} for each in batches]
    parents: list[dict[int, int]] = []
    for _ in range(most):
        distance = torch.full((count + 1, count + 1), torch.inf, dtype=torch.float64)  # [i, j]
        steps = []
        for each, states in zip(batches, kept, strict=True):
            started = {}
            for i, state in states.items():
                if i == count:
                    continue
                output = each.denoise(state, levels[i])
                slope = (state - output) / levels[i]
                started[i] = output, slope
                later = each.levels[i + 1 :].to(state.device, state.dtype)[:, None, None]
                off = (output + later * slope - each.states[i + 1 :]).double().square().sum((1, 2)).cpu()
                known = distance[i, i + 1 :]
                distance[i, i + 1 :] = torch.where(known.isinf(), off, known + off)
            steps.append(started)
        best = distance.argmin(0)
        reached = [j for j in range(1, count + 1) if distance[:, j].min().isfinite()]
        parents.append({j: int(best[j]) for j in reached})
        kept = [{j: _step(started, int(best[j]), levels[j]) for j in reached} for started in steps]
    return [_path(parents[:steps], count) for steps in range(1, most + 1)]


def _step(started: dict[int, tuple[Tensor, Tensor]], i: int, level: float) -> Tensor:
    output, slope = started[i]
    return output + level * slope


def _path(parents: list[dict[int, int]], count: int) -> list[int]:
    path = [count]
    for each in reversed(parents):
        path.append(each[path[-1]])
    return path[::-1]
