"""Lists of a report as Markdown, CSV and LaTeX: verdicts, win rates, published numbers beside ours, BibTeX."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from solverbench.reports import verdicts
from solverbench.reports.pages.content import Report
from solverbench.reports.pages.tables import escape_latex, escape_markdown
from solverbench.reports.pages.text import bibtex
from solverbench.wording import BELOW_ERROR, csv_text


@dataclass(frozen=True)
class Column:
    """A column of a list in LaTeX: `share` of the line's width, and `lines`, each the names of its fields."""

    title: str
    share: float
    lines: tuple[tuple[str, ...], ...]


VERDICTS = (
    Column("verdict", 0.19, (("verdict",),)),
    Column("claim", 0.53, (("claim", "metric"),)),
    Column("difference", 0.28, (("difference",), ("95 % interval",), ("corrected p",))),
)
WINS = (
    Column("solver", 0.42, (("solver", "NFE"), ("metric", "teacher"))),
    Column("win rate", 0.28, (("win rate",), ("wins / ties / losses",))),
    Column("difference", 0.30, (("mean difference",), ("95 % interval",))),
)
PUBLISHED = (
    Column("published number", 0.55, (("row",), ("solver", "metric", "teacher", "NFE"))),
    Column("published", 0.17, (("published",),)),
    Column("ours", 0.28, (("ours", "agrees"), ("95 % interval",), ("difference",))),
)
"""The columns of the lists in LaTeX, for one column of a paper. Other fields follow in the widest column."""
_COLUMN, _LETTER = 234.0, 3.3  # points: the column of a paper, an average letter of \scriptsize
_LINES = 60  # of \scriptsize in one table: less than a column of a paper
_TABLES = 12  # tables that LaTeX may keep back before it has to place them


def files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files of the lists that are not empty."""
    if table := report.table("verdicts"):
        record = report.bundle.record
        each = (f"{verdicts.counted(verdicts.rows(record))}.", _corrected(report), verdicts.below_error(record))
        said = " ".join(filter(None, each))
        yield from _each("verdicts", table.head, table.texts, said, VERDICTS)
    if table := report.table("wins"):
        said = f"Share of images that beat {report.baseline}'s from the same seed and prompt, ties counted half."
        yield from _each("wins", table.head, table.texts, said, WINS)
    if table := report.table("published"):
        said = "Published numbers beside ours; one agrees if, as it was rounded, it lies within our 95 % interval."
        yield from _each("published", table.head, table.texts, said, PUBLISHED)
    if rows := list(_ahead(report)):
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([(*AHEAD, *_options(report)), *rows])
        yield "ahead.csv", file.getvalue().encode()
    if text := bibtex(report.bundle.record):
        yield "solvers.bib", (text.rstrip() + "\n").encode()


def _corrected(report: Report) -> str:
    """Return what the verdicts were corrected for, as a sentence."""
    family = verdicts.family(report.bundle.record)
    if not family:
        return "Not corrected for their number."
    return f"Corrected for {family} comparison{'s' * (family > 1)} (Holm, family-wise .05)."


AHEAD = ("metric", "teacher", "part", "NFE", "best", "other", "difference", "low", "high", "p", "p_holm", "comparisons",
         "ahead", "paired", "verdict")  # fmt: skip


def _ahead(report: Report) -> Iterator[Sequence[object]]:
    """Yield a row for each comparison of the best solver of a budget with another one: best less other.

    The options of the teacher that differ in this run come last.
    """
    for metric, table, standings in report.standings:
        for part, own in zip(table, standings.found, strict=True):
            for nfe, standing in own.items():
                for each in standing.comparisons:
                    found = each.found
                    yield (
                        metric, csv_text(part.teacher), part.number, nfe, csv_text(each.best), csv_text(each.other),
                        *(repr(number) for number in (found.value, found.low, found.high, found.p, found.p_holm)),
                        standings.pairs, "yes" if found.sign else "no", "yes" if each.paired else "no",
                        "ahead" if found.sign else BELOW_ERROR if found.masked else "level",
                        *(csv_text(value or "") for value in report.axes.values(part.teacher)),
                    )  # fmt: skip


def _options(report: Report) -> Iterator[str]:
    """Yield the columns of the teachers' options."""
    for name in report.axes.options:
        yield str(csv_text(f"teacher_{name}" if name in AHEAD else name))


def _each(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, columns: Sequence[Column]
) -> Iterator[tuple[str, bytes]]:
    yield f"{name}.md", markdown(head, rows, said).encode()
    yield f"{name}.csv", comma_separated(head, rows).encode()
    yield f"{name}.tex", latex(name, head, rows, said, columns).encode()


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], said: str) -> str:
    """Return the list as a Markdown table, with `said` above."""
    lines = [head, ["---"] * len(head), *([escape_markdown(text) for text in row] for row in rows)]
    return "\n".join([escape_markdown(said), "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def comma_separated(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the list as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([head, *([csv_text(text) for text in row] for row in rows)])
    return file.getvalue()


def latex(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, columns: Sequence[Column]) -> str:
    r"""Return the list as LaTeX for \usepackage{array,booktabs}: tables as wide as a line of one column.

    A list that is longer than a column becomes several tables; the first one has the caption and the label.
    """
    columns = _completed(columns, head)
    made = [_cells(columns, dict(zip(head, row, strict=True))) for row in rows]
    shares = (f"\\dimexpr {column.share:.2f}\\linewidth-2\\tabcolsep\\relax" for column in columns)
    begin = "".join(f"\n    >{{\\raggedright\\arraybackslash}}p{{{share}}}" for share in shares)
    titles = " & ".join(escape_latex(column.title) for column in columns)
    lines = ["% needs \\usepackage{array,booktabs}; fits a column of a paper"]
    for i, part in enumerate(_split(columns, made)):
        captioned = f"\\caption{{{escape_latex(said)}}} \\label{{tab:{name}}}"
        lines += ["\\clearpage"] * (i > 0 and i % _TABLES == 0) + [
            "\\begin{table}", "  \\scriptsize\\setlength{\\tabcolsep}{1.5pt}",
            f"  {captioned}" if i == 0 else f"  Table~\\ref{{tab:{name}}}, continued.\\par\\smallskip",
            f"  \\begin{{tabular}}{{{begin}}}", "    \\toprule", f"    {titles} \\\\", "    \\midrule",
            *(f"    {' & '.join(map(_stacked, cells))} \\\\[1.5pt]" for cells in part),
            "    \\bottomrule", "  \\end{tabular}", "\\end{table}",
        ]  # fmt: skip
    return "\n".join([*lines, ""])


_Cell = Sequence[str]


def _completed(columns: Sequence[Column], head: Sequence[str]) -> list[Column]:
    """Return the columns, the widest one with a line for each field that none of them has."""
    named = {name for column in columns for line in column.lines for name in line}
    more = tuple((name,) for name in head if name not in named)
    widest = max(columns, key=lambda column: column.share)
    return [replace(column, lines=column.lines + more) if column is widest else column for column in columns]


def _cells(columns: Sequence[Column], fields: Mapping[str, str]) -> list[_Cell]:
    """Return the lines of each column of a row; empty fields and lines are left out."""
    named = {**fields, **({"NFE": f"NFE {fields['NFE']}"} if fields.get("NFE") else {})}
    if agrees := fields.get("agrees"):
        named["agrees"] = "agrees" if agrees == "yes" else "differs"
    made = [
        [", ".join(filter(None, (named.get(name, "") for name in line))) for line in each.lines] for each in columns
    ]
    return [[line for line in lines if line] for lines in made]


def _split(columns: Sequence[Column], rows: Sequence[Sequence[_Cell]]) -> Iterator[list[Sequence[_Cell]]]:
    """Yield the rows in parts that fit into a column of a paper, each with at least one row."""
    part, used = list[Sequence[_Cell]](), 0
    for cells in rows:
        letters = [column.share * _COLUMN / _LETTER for column in columns]
        tall = max(
            sum(math.ceil(len(line) / most) for line in lines) for lines, most in zip(cells, letters, strict=True)
        )
        if part and used + tall > _LINES:
            yield part
            part, used = [], 0
        part.append(cells)
        used += tall
    yield part


def _stacked(lines: _Cell) -> str:
    return " \\newline ".join(re.sub(r"(?<![\w\]])-(?=\d)", "$-$", _breakable(line)) for line in lines)


def _breakable(text: str) -> str:
    r"""Return the text for LaTeX, where lines may break after the signs within names and specs."""
    return "".join(escape_latex(piece) + ("\\allowbreak{}" if piece[-1:] in "/:=_,@" and piece else "")
                   for piece in re.split(r"(?<=[/:=_,@])(?=\S)", text))  # fmt: skip
