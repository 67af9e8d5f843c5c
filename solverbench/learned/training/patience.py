"""When a training that no longer improves goes back, slows down and ends."""

from __future__ import annotations

from collections.abc import Sequence

from solverbench.learned.recipes import Recipe


class Patience:
    """Counts validations without improvement; inactive if the recipe's patience is 0.

    `partial` is true until it is exhausted for the first time: until then only the first validation pairs are used, if
    the recipe says how many. Source: the public code of LD3, arXiv:2405.15506.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.limit, self.stop_after = recipe.patience, recipe.stop_after
        self.partial = bool(recipe.patience and recipe.validation_first_use)
        self.failures = self.hits = 0

    @property
    def over(self) -> bool:
        """Whether the training ends."""
        return self.hits >= self.stop_after

    def exhausted(self, improved: bool) -> bool:
        """Count one validation; return whether patience has run out, and start anew if so."""
        self.failures = 0 if improved else self.failures + 1
        if not self.limit or self.failures < self.limit:
            return False
        self.failures = 0
        return True

    def count(self, at_least: bool) -> None:
        """Count a time that the watched rate was at its least already."""
        self.hits += at_least

    def state(self) -> list[int]:
        """Return the counters, for a checkpoint."""
        return [self.failures, self.hits, int(self.partial)]

    def restore(self, state: Sequence[int]) -> None:
        """Take up what `state` gave."""
        self.failures, self.hits, self.partial = int(state[0]), int(state[1]), bool(state[2])
