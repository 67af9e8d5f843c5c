"""Widths of figures: the columns of the usual venues, in inches."""

from dataclasses import dataclass

from solverbench.reports.bundle import BundleError


@dataclass(frozen=True)
class Width:
    """A venue's widths in inches: `single` for a figure of one panel, `double` for several side by side."""

    single: float
    double: float


VENUES = {
    "icml": Width(3.25, 6.75),
    "cvpr": Width(3.25, 6.875),
    "neurips": Width(2.7, 5.5),
    "iclr": Width(2.7, 5.5),
}
"""Column and text width. NeurIPS and ICLR have one column of 5.5 inches; their `single` is half of it, less a gap.

Source: the authors' kits of ICML (3.25 and 6.75), CVPR (3 1/4 and 6 7/8), NeurIPS and ICLR (5.5).
"""
DEFAULT = VENUES["icml"]


def width(name: str | Width | None) -> Width:
    """Return the widths of a venue by its name; the default ones for None.

    Raises: BundleError for an unknown name.
    """
    if isinstance(name, Width):
        return name
    if name is not None and name.lower() not in VENUES:
        raise BundleError(asked=f"width {name!r}", wrong="not known", remedy=f"choose from {', '.join(VENUES)}")
    return DEFAULT if name is None else VENUES[name.lower()]
