"""The weighted sum of the history, shared by all exported forms."""

import torch


def combine(row: list[float], history: list[torch.Tensor]) -> torch.Tensor:
    """Return the sum of `history`, each tensor times its weight in `row`."""
    x = history[0] * row[0]
    for weight, past in zip(row[1:], history[1:], strict=True):
        if weight:
            x.add_(past, alpha=weight)
    return x
