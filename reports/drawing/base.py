"""Shared by all figures: the settings for papers, the blank figure, and rendering to bytes.

Uses matplotlib objects only: no pyplot figure, no global state, and the same bytes for the same numbers.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
_DPI = 300
_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so it is the same everywhere
    "font.size": 7,
    "text.parse_math": False,
    "path.simplify": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "solverbench",
}
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Date": None, "Creator": "SolverBench"},
}


class Drawing(Figure):
    """A matplotlib Figure that a notebook displays, drawn and saved with the settings for papers."""

    def _repr_png_(self) -> bytes:
        return render(self, "png")

    def save(self, path: str | Path) -> None:
        """Write the figure in the format given by the file ending: png, pdf or svg."""
        with open(path, "wb") as file:
            file.write(render(self, Path(path).suffix.removeprefix(".").lower()))


def blank(width: float, height: float, dpi: int = _DPI) -> Drawing:
    """Return an empty figure of this size in inches."""
    figure = Drawing(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """Return the figure as png (300 dpi), pdf (embedded TrueType fonts) or svg (text kept as text), without dates.

    Raises: ValueError for another format.
    """
    if kind not in FORMATS:
        raise ValueError(f"figure format {kind!r}: it is not known; choose from {', '.join(FORMATS)}")
    file = io.BytesIO()
    with settings():
        figure.savefig(file, format=kind, dpi=figure.dpi, metadata=_METADATA[kind])
    return file.getvalue()


@contextmanager
def settings() -> Iterator[None]:
    """Apply seaborn's paper style and our own settings, whatever the session has set; restore them at the end."""
    import seaborn  # takes a second to import: only when something is drawn

    defaults: dict[Any, Any] = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
    paper = {**seaborn.axes_style("ticks"), **seaborn.plotting_context("paper")}
    with matplotlib.rc_context({**defaults, **paper, **_SETTINGS}):
        yield
