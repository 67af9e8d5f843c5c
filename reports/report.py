"""The report of a run: report.md with its figures, tables and image grids, written into the bundle's own folder."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reports import costs, figures, images, tables
from reports.bundle import FINISHED, STATUSES, Bundle, BundleError, load, unmarked
from reports.parts import PROTOCOL, Line, Part, parts, ranges, slug
from reports.tables import escape_markdown as escape

RANKS = {"not held": 0, "unresolved": 1, "held": 3}
"""What of the verdicts stands first; who is ahead, where nothing was claimed, stands before what is held."""


def write(folder: str | Path) -> list[Path]:
    """The files written into `folder`, report.md last; each is put in its place whole or not at all.

    Raises: BundleError where the folder holds no sound bundle, or cannot be written to.
    """
    bundle = load(folder)
    written = []
    try:
        for name, content in _files(bundle):
            _put(bundle.folder / name, content)
            written.append(bundle.folder / name)
    except OSError as error:
        raise BundleError(
            f"{bundle.folder}: the report cannot be written ({error}); free or unlock the folder"
        ) from error
    return written


def page(bundle: Bundle) -> str:
    """The text of report.md."""
    found = parts(bundle.frame, bundle.record)
    return (
        "\n".join(line.rstrip() for block in _blocks(bundle, found) for line in (*block.split("\n"), "")).rstrip()
        + "\n"
    )


def below_teacher(found: Sequence[Part], said: Sequence[str] = ()) -> list[str]:
    """A note for each solver whose distance to the data is below its teacher's own, but for cells `said` speaks of.

    Lower than the teacher is not closer to the teacher: truncation errors can sharpen a weak one's samples.
    """
    notes = []
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
                notes.append(f"{kind}{label} {_below(cells, line)}")
    return notes


def _below(cells: Sequence[tuple[int, float, float]], line: Line) -> str:
    """The end of such a note, for cells (nfe, value, high)."""
    values = ", ".join(f"{value:.3g}" for _, value, _ in cells)
    edge = line.value if math.isnan(line.low) else line.low
    unclear = [nfe for nfe, value, high in cells if (value if math.isnan(high) else high) >= edge]
    return (
        f"at NFE {ranges([nfe for nfe, _, _ in cells])} lies below its teacher's own distance to the data "
        f"({values} < {line.value:.3g}, {line.label})"
        + (f", within the intervals at NFE {ranges(unclear)}" if unclear else "")
        + ": lower than the teacher is not closer to the teacher; "
        "read it beside the distance to the teacher's samples and the error to its endpoints."
    )


def _files(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """Every file's name and content."""
    found = parts(bundle.frame, bundle.record)
    pictures = bundle.images
    for part in found:
        figure = figures.compose([part])
        for kind in figures.FORMATS:
            yield f"figure-{part.name}.{kind}", figures.render(figure, kind)
        yield f"figure-{part.name}.csv", _csv(figures.drawn(part))
        yield f"table-{part.name}.md", tables.markdown(part).encode()
        yield f"table-{part.name}.csv", tables.comma_separated(part).encode()
        yield f"table-{part.name}.tex", tables.latex(part).encode()
    figure = figures.compose(found)
    for kind in figures.FORMATS:
        yield f"figure.{kind}", figures.render(figure, kind)
    yield "figure.csv", _csv(pd.concat([figures.drawn(part) for part in figures.shown(found)], ignore_index=True))
    if not (spent := costs.rows(found)).empty:
        figure = costs.compose(found)
        for kind in figures.FORMATS:
            yield f"figure-training.{kind}", figures.render(figure, kind)
        yield "figure-training.csv", _csv(spent)
    for teacher in dict.fromkeys(bundle.frame["teacher"]):
        if layout := images.grid(bundle.frame, pictures, teacher):
            yield f"images-{slug(teacher)}.png", images.render(layout)
    yield "report.md", page(bundle).encode()


def _blocks(bundle: Bundle, found: Sequence[Part]) -> Iterator[str]:
    """The paragraphs of the page, in order."""
    record, frame = bundle.record, bundle.frame
    solvers, teachers = list(dict.fromkeys(frame["label"])), list(dict.fromkeys(frame["teacher"]))
    budgets = ranges(frame["nfe"].to_list())
    yield "# " + escape(f"{', '.join(solvers)} at NFE {budgets} on {', '.join(teachers)}")
    if record["tags"]:
        yield "> **Read with care:** " + "; ".join(escape(str(tag)) for tag in record["tags"])
    yield "\n".join(["```", *str(record.get("command", "(command not recorded)")).splitlines(), "```"])
    yield _counts(frame)
    yield "![Every metric against NFE](figure.png)"
    yield (
        "Bars are the intervals of the tables; where none is seen it is smaller than its marker. A line breaks at a "
        "budget without a value. Also as [PDF](figure.pdf), [SVG](figure.svg) and [CSV of what is drawn](figure.csv)."
    )
    if marks := tables.footnotes(frame):
        yield "Marks at names: " + " ".join(f"`{mark}` {escape(text)}." for mark, text in marks)
    yield from _reference_lines(record)
    notes = [str(note) for note in record["notes"]]
    notes += [*below_teacher(found, notes), *_splits(found)]
    if notes:
        yield "## Notes\n\n" + "\n".join(f"- {escape(note)}" for note in notes)
    for part in found:
        heading = part.label if len(teachers) == 1 else f"{part.teacher}: {part.label}"
        yield f"## {escape(heading)}" + (f", part {part.number}" if part.number > 1 else "")
        yield tables.markdown(part).rstrip()
        yield _links(part.name)
    yield from _training(found, len(teachers) > 1)
    yield from _pictures(bundle, teachers)
    yield from _verdicts(record)
    yield from _unfinished(frame)
    yield _solvers(frame)
    for name in ("protocol", "environment"):
        if record[name]:
            rows = [(str(key), _flat(value)) for key, value in record[name].items()]
            yield f"## {name.capitalize()}\n\n{_table(('', ''), rows)}"


def _reference_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What the horizontal lines of the figures are."""
    shown = [
        f"{line['label']} ({record['metrics'].get(line.get('metric'), {}).get('short', line.get('metric'))}) "
        f"{line['value']:.3g}" + (f", {line['low']:.3g} to {line['high']:.3g}" if "low" in line else "")
        for line in record["lines"]
    ]
    if shown:
        yield (
            f"Horizontal lines, with their 95 % intervals: {escape('; '.join(shown))}. A floor is what fresh sets of "
            "the same size reach on average against the same reference: nothing is to be gained below it, and a solver "
            "as good as its teacher lies above or below it by chance."
        )


def _counts(frame: pd.DataFrame) -> str:
    cells = frame.drop_duplicates(["teacher", "label", "nfe"])
    counts = Counter(cells["status"])
    listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(cells)} cell{'s' * (len(cells) != 1)} asked for: {listed}."


def _verdicts(record: Mapping[str, Any]) -> Iterator[str]:
    if not record["verdicts"]:
        return
    ranked = sorted(record["verdicts"], key=lambda verdict: RANKS.get(verdict.get("verdict"), 2))
    counts = Counter(str(verdict.get("verdict")) for verdict in ranked)
    rows = []
    for verdict in ranked:
        numbers = [verdict.get(key) for key in ("difference", "low", "high")]
        known = all(isinstance(number, int | float) for number in numbers)
        shown = [f"{number:.3g}" for number in numbers] if known else [str(verdict.get("reason", "")), "", ""]
        metric = record["metrics"].get(verdict.get("metric"), {}).get("short", verdict.get("metric", ""))
        interval = f"{shown[1]} to {shown[2]}" if known else ""
        row = [str(verdict.get("verdict", "")), str(verdict.get("claim", "")), str(metric), shown[0], interval]
        rows.append([*row, str(verdict.get("caution", ""))])
    counted = ", ".join(f"{count} {name}" for name, count in counts.items())
    cautious = any(row[-1] for row in rows)
    head = ["verdict", "claim", "metric", "difference", "95 % interval", *(["caution"] if cautious else [])]
    yield (
        f"## Verdicts\n\n{len(rows)} claims: {counted}. A claim is held if the paired interval of its difference lies "
        "at or below 0, not held if above, else unresolved; where two are set against each other without a claim, "
        "neither is ahead, they are level, if it holds 0. The interval is sampling error: a learned solver trained "
        "again from other seeds moves too"
        + (
            ", and a caution says where their validation RMSE spreads, relatively, by more than the difference"
            if cautious
            else ""
        )
        + ".\n\n"
        + _table(head, rows if cautious else [row[:-1] for row in rows])
    )


def _splits(found: Sequence[Part]) -> list[str]:
    """What later parts differ in from the first one."""
    notes = []
    for part in (part for part in found if part.number > 1):
        first = next(p for p in found if (p.teacher, p.metric, p.number) == (part.teacher, part.metric, 1))
        differing = [
            f"{name} {getattr(part, name)} (part 1: {getattr(first, name)})"
            for name in PROTOCOL
            if getattr(part, name) != getattr(first, name)
        ]
        what = f"{part.metric} on {part.teacher}, part {part.number}: {', '.join(part.solvers)}"
        notes.append(f"{what} measured with {', '.join(differing)}; not to be compared with part 1.")
    return notes


def _links(name: str) -> str:
    figure = ", ".join(f"[{kind.upper()}](figure-{name}.{kind})" for kind in (*figures.FORMATS, "csv"))
    table = ", ".join(f"[{text}](table-{name}.{kind})" for text, kind in (("LaTeX", "tex"), ("CSV", "csv")))
    return f"Figure: {figure}. Table: {table}."


def _training(found: Sequence[Part], several: bool) -> Iterator[str]:
    """What the learned solvers took to train, beside what they reach."""
    rows = costs.rows(found)
    if rows.empty:
        return
    yield "## Training\n\n![Training cost and quality](figure-training.png)"
    yield (
        "Calls of the network times images, of all training seeds together; those of the teacher, for its images, "
        "which the seeds share, are counted once. RMSE is over the validation pairs: of the kept seed, and the largest "
        "less the smallest of all seeds. Also as [PDF](figure-training.pdf), [SVG](figure-training.svg) and "
        "[CSV](figure-training.csv)."
    )
    text = costs.text(rows)
    yield _table([str(name) for name in text.columns if several or name != "teacher"],
                 [[str(value) for name, value in row.items() if several or name != "teacher"]
                  for _, row in text.iterrows()])  # fmt: skip


def _pictures(bundle: Bundle, teachers: Sequence[str]) -> Iterator[str]:
    shown = [name for name in teachers if images.grid(bundle.frame, bundle.images, name)]
    if shown:
        yield "## Samples\n\nThe same seeds in every block."
        yield from (f"![Samples of {escape(name)}](images-{slug(name)}.png)" for name in shown)


def _unfinished(frame: pd.DataFrame) -> Iterator[str]:
    """Every cell that is neither done nor cached, with its whole reason."""
    cells = frame[~frame["status"].isin(FINISHED)].drop_duplicates(["teacher", "label", "nfe"])
    if len(cells):
        columns = ("teacher", "label", "nfe", "status", "reason")
        rows = [tuple(str(row[column]) for column in columns) for _, row in cells.iterrows()]
        yield f"## Cells without a result\n\n{_table(('teacher', 'solver', 'NFE', 'status', 'reason'), rows)}"


def _solvers(frame: pd.DataFrame) -> str:
    """What each name stands for, written out."""
    rows = []
    for label in dict.fromkeys(frame["label"]):
        own = frame[frame["label"] == label]
        specs = [spec for spec in dict.fromkeys(own["spec"]) if spec]
        rows.append((str(label), ", ".join(specs) or str(label), "learned" if own["learned"].any() else "classical"))
    return f"## Solvers\n\n{_table(('solver', 'written out', 'kind'), rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _flat(value: Any) -> str:
    """A value of bundle.json on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_flat(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return " ".join(str(value).split())


def _speaks_of(notes: Sequence[str], solver: str, nfe: int) -> bool:
    """Whether a note already compares this cell with the teacher."""
    cell = re.compile(rf"(?<!\S){re.escape(solver)}(?: at)? NFE {nfe}\b")
    return any("teacher" in note and cell.search(note) for note in notes)


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _put(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
