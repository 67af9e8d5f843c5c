"""User errors: exceptions whose text is the one line that the command line prints.

Form: `<request>: <what is wrong, with the value>; <what to do>`.
"""


class UserError(Exception):
    """A mistake of the user or in their files, never a bug of SolverBench. `exit_code` is the command's exit code."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the text as one line; characters that are not printable are escaped as in Python."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class SpecError(UserError):
    """A solver spec that cannot be parsed, or an option or value that the solver does not have."""


class UnknownNameError(SpecError):
    """A name that is not registered."""


class BudgetError(UserError):
    """A number of calls that the solver cannot spend exactly."""


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
