"""Sentences of a report that are derived from its numbers."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from solverbench.reports.bundle import unmarked
from solverbench.reports.parts import PROTOCOL, Line, Part, ranges


def below_teacher(found: Sequence[Part], said: Sequence[str] = ()) -> list[str]:
    """Return a note per solver whose distance to the data is below its teacher's own, except cells named in `said`.

    Lower than the teacher is not closer to the teacher: truncation errors can sharpen a weak teacher's samples.
    """
    notes, several = [], len({part.teacher for part in found}) > 1
    for part in (part for part in found if part.metric == "frechet_data"):
        line = next((line for line in part.lines if line.label.startswith("teacher")), None)
        if line is None:
            continue
        for label in part.solvers:
            rows = part.frame[(part.frame["label"] == label) & (part.frame["value"] < line.value)].sort_values("nfe")
            cells = [
                (int(nfe), float(value), float(high))
                for nfe, value, high in zip(rows["nfe"], rows["value"], rows["high"], strict=True)
                if not _speaks_of(said, unmarked(label), nfe)
            ]
            if cells:
                kind = "learned solver " if rows["learned"].any() else ""
                where = f" on {part.title}" if several else ""
                notes.append(f"{kind}{label}{where} {_below(cells, line)}")
    return notes


def _below(cells: Sequence[tuple[int, float, float]], line: Line) -> str:
    """Return the end of such a note, for cells (nfe, value, high)."""
    values = ", ".join(f"{value:.3g}" for _, value, _ in cells)
    edge = line.value if math.isnan(line.low) else line.low
    unclear = [nfe for nfe, value, high in cells if (value if math.isnan(high) else high) >= edge]
    return (
        f"at NFE {ranges([nfe for nfe, _, _ in cells])} is nearer to the data ({values}) than its teacher's own "
        f"samples ({line.value:.3g}, {line.label})"
        + (f", within the intervals at NFE {ranges(unclear)}" if unclear else "")
        + ". That doesn't make it nearer to the teacher: compare its distance to the teacher's samples and its RMSE."
    )


def splits(found: Sequence[Part]) -> list[str]:
    """Return how each later part differs from the first one."""
    notes = []
    for part in (part for part in found if part.number > 1):
        first = next(p for p in found if (p.teacher, p.metric, p.number) == (part.teacher, part.metric, 1))
        differing = [
            f"{name} {getattr(part, name)} (part 1: {getattr(first, name)})"
            for name in PROTOCOL
            if getattr(part, name) != getattr(first, name)
        ]
        what = f"{part.metric} on {part.title}, part {part.number}: {', '.join(part.solvers)}"
        notes.append(f"{what} measured with {', '.join(differing)}; not to be compared with part 1.")
    return notes


_TEX = frozenset(
    re.findall(
        r"\S+",
        "emph textit textbf textsc textrm texttt url href mathrm mathbf mathcal "
        "ss o O l L ae AE oe OE aa AA i j c v H k r u b d t "
        "alpha beta gamma delta epsilon eta kappa lambda mu nu pi rho sigma tau phi psi omega infty times "
        "pm sim textbackslash textasciicircum ldots dots",
    )
)
"""TeX's commands that may stand in an entry of a bibliography: accents, letters, fonts."""


def bibtex(record: Mapping[str, Any]) -> str:
    """Return the BibTeX of bundle.json, in which TeX commands other than accents and fonts have no effect.

    A foreign report's entries could read files by `\\input`.
    """
    text = re.sub(r"@\s*preamble", "@comment", str(record.get("bibtex", "")), flags=re.IGNORECASE).replace("^^", "^ ^")
    return re.sub(
        r"\\([A-Za-z@]+)", lambda found: found[0] if found[1] in _TEX else rf"\textbackslash {found[1]}", text
    )


def flat(value: Any) -> str:
    """Return a value of bundle.json on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {flat(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(flat, value))
    return " ".join(str(value).split())


def _speaks_of(notes: Sequence[str], solver: str, nfe: int) -> bool:
    """Return whether a note already compares this cell with the teacher."""
    cell = re.compile(rf"(?<!\S){re.escape(solver)}(?: at)? NFE {nfe}\b")
    return any("teacher" in note and cell.search(note) for note in notes)
