"""The error of a reference: the distance of the teacher sampler's images to those of other samplers of its ODE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROUGH = 1 / 255
"""RMSE above which a reference isn't converged: half the step of an 8-bit pixel, for images on [-1, 1]."""

SHARE = 10
"""An RMSE below this many times the error of its reference is marked."""


def more(calls: int, error: float) -> int:
    """Return a number of calls that is likely to bring the error below `ROUGH`, if it falls with their square.

    It is at least twice and at most ten times `calls`.
    """
    factor = min(max(math.sqrt(error / ROUGH), 2.0), 10.0)
    return math.ceil(factor * calls / 10) * 10


def unconverged(name: str, calls: int, error: float) -> dict[str, str]:
    """Return the fields of the one sentence about a reference that isn't converged; see `wording.Problem`.

    Args:
        name: the teacher's name.
        calls: those of its sampler.
        error: error of the reference, RMSE on [-1, 1].
    """
    return {
        "asked": f"the reference of {name} isn't converged",
        "wrong": f"its error is {error:.2g} RMSE, so differences between solvers below {error:.2g} decide nothing; "
        f"below {ROUGH:.2g}, half the step of an 8-bit pixel, it would count as converged",
        "remedy": f"give the teacher's sampler more calls, as in sampler_nfe={more(calls, error)}, or another sampler",
    }


def warning(name: str, calls: int, error: float | None) -> str:
    """Return that sentence as one line; empty if the reference is converged, or if its error is unknown."""
    if error is None or error <= ROUGH:
        return ""
    told = unconverged(name, calls, error)
    return f"{told['asked']}: {told['wrong']}; {told['remedy']}"


@dataclass(frozen=True)
class Comparison:
    """The teacher sampler's images against other images from the same noise.

    Args:
        what: human-readable name of the other images, such as "the same sampler with 128 calls".
        rmse: root mean squared difference over all pixels of all images, on [-1, 1]; None if there is none.
        reason: why there is no number.
    """

    what: str
    rmse: float | None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}" if self.rmse is None else f"{self.rmse:.2g} to {self.what}"


@dataclass(frozen=True)
class Convergence:
    """The measured error of a teacher sampler, which is the reference of paired errors and the target of training.

    Args:
        n: number of images compared.
        seeds: their seeds, as text.
        comparisons: what they were compared with.
        asked: sha256 of solver, calls and schedule (`Goal.asked`), which says what sampler this is about.
    """

    n: int
    seeds: str
    comparisons: tuple[Comparison, ...]
    asked: str

    @property
    def error(self) -> float | None:
        """The largest RMSE; None if none is known."""
        return max((each.rmse for each in self.comparisons if each.rmse is not None), default=None)

    @property
    def rough(self) -> bool:
        """Whether the error is known and above `ROUGH`."""
        return self.error is not None and self.error > ROUGH

    @property
    def text(self) -> str:
        """Human-readable text, such as `RMSE 0.0004 to the same sampler with 128 calls; 64 images, seeds ...`."""
        told = "; ".join(map(str, self.comparisons))
        if self.error is None:
            return f"unknown ({told})"
        return f"RMSE {told} ({self.n} images, seeds {self.seeds})"

    def marks(self, rmse: float) -> bool:
        """Return whether an RMSE to this reference is so small that it is partly the reference's own error."""
        return self.error is not None and rmse < SHARE * self.error

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        compared = [{"what": each.what, "rmse": each.rmse, "reason": each.reason} for each in self.comparisons]
        return {"n": self.n, "seeds": self.seeds, "asked": self.asked, "compared": compared}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Convergence:
        """Return the convergence stored as `as_dict()`."""
        compared = (Comparison(each["what"], each["rmse"], each.get("reason", "")) for each in facts["compared"])
        return cls(facts["n"], facts["seeds"], tuple(compared), facts["asked"])
