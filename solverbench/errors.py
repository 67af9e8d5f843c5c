"""User errors: exceptions whose text is the one line that the command line prints.

Form: `<what was asked>: <what is wrong, with the value>; <what to do>`. Code that needs a part of the sentence reads
the fields `asked`, `wrong` and `remedy`, never the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from solverbench.wording import Problem


class UserError(Problem):
    """A mistake of the user or their files, never a bug of ours. `exit_code` is the command line's exit code."""

    exit_code = 2


class SpecError(UserError):
    """A solver spec that cannot be parsed, or an option or value that the solver does not have."""


class UnknownNameError(SpecError):
    """A name that is not registered."""


class BudgetError(UserError):
    """A number of calls that the solver can't spend exactly.

    Args:
        asked, wrong, remedy: the sentence, see `UserError`.
        near: the nearest numbers of calls that it can spend; `solverbench check` compares them.
    """

    def __init__(self, *, asked: object, wrong: str, remedy: str, near: Iterable[int] = ()) -> None:
        super().__init__(asked=asked, wrong=wrong, remedy=remedy)
        self.near = frozenset(near)


class GridError(UserError):
    """Noise levels that do not form a grid: too few, not finite, not strictly decreasing, or not positive."""


class LoopError(UserError):
    """A solver loop that fails, returns no valid state, or does not end."""


class NotLinearError(LoopError):
    """A loop that is not a fixed linear combination of the start and the denoiser's outputs."""


class TrainingError(UserError):
    """A training that cannot continue; its progress so far is kept."""

    exit_code = 1


class FeatureError(UserError):
    """Features or feature statistics from which no distance can be computed."""


class NeedsTrainingError(UserError):
    """A learned solver without parameters for this teacher and number of calls."""


class NeedsSearchError(GridError):
    """A grid that is found by a search on the teacher, which has not been made.

    Args:
        asked, wrong, remedy: the sentence, see `UserError`.
        search: name of the search, number of intervals, and parameters.
    """

    def __init__(
        self, *, asked: object, wrong: str, remedy: str, search: tuple[str, int, Mapping[str, object]]
    ) -> None:
        super().__init__(asked=asked, wrong=wrong, remedy=remedy)
        self.search = search


class RecordError(UserError):
    """A SolverBench file that is damaged, foreign, or made for something else."""


class StoreError(UserError):
    """A store that cannot be read or written."""

    exit_code = 3


class PluginError(UserError):
    """A plugin that does not load, or a plugin's name whose object is not available."""

    exit_code = 3


class MissingError(UserError):
    """A missing teacher, reference, weights file or optional package."""

    exit_code = 3
