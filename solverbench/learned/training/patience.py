"""Patience: when a training without improvement reverts to the best parameters, lowers its rates and ends."""

from __future__ import annotations

from collections.abc import Sequence

from solverbench.learned.recipes import Recipe


class Patience:
    """Counter of validations without improvement; inactive if the recipe's patience is 0.

    `partial` is true until patience first runs out, if the recipe sets `validation_first_use`: until then only so many
    validation pairs are used. Source: the public code of LD3, arXiv:2405.15506.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.limit, self.stop_after = recipe.patience, recipe.stop_after
        self.partial = bool(recipe.patience and recipe.validation_first_use)
        self.failures = self.hits = 0

    @property
    def over(self) -> bool:
        """Whether the training should end."""
        return self.hits >= self.stop_after

    def exhausted(self, improved: bool) -> bool:
        """Count one validation; return whether patience has run out, and if so reset the count."""
        self.failures = 0 if improved else self.failures + 1
        if not self.limit or self.failures < self.limit:
            return False
        self.failures = 0
        return True

    def count(self, at_least: bool) -> None:
        """Count a decay at which the watched rate was already at its minimum."""
        self.hits += at_least

    def state(self) -> list[int]:
        """Return the counters for a checkpoint."""
        return [self.failures, self.hits, int(self.partial)]

    def restore(self, state: Sequence[int]) -> None:
        """Restore from `state()`."""
        self.failures, self.hits, self.partial = int(state[0]), int(state[1]), bool(state[2])
