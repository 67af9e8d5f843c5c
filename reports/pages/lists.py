"""Lists of a report as Markdown, CSV and LaTeX: verdicts, published numbers beside ours, BibTeX of the solvers."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from solverbench.reports import verdicts
from solverbench.reports.pages.content import Report
from solverbench.reports.pages.tables import escape_latex, escape_markdown
from solverbench.reports.pages.text import bibtex
from solverbench.wording import csv_text

VERDICTS = (0.12, 0.28, 0.14, 0.11, 0.15, 0.20)
PUBLISHED = (0.11, 0.08, 0.10, 0.07, 0.05, 0.10, 0.08, 0.11, 0.11, 0.07, 0.12)
"""The shares of the columns in the width of a line, in LaTeX."""


def files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files of the lists that are not empty."""
    if table := report.table("verdicts"):
        said = f"{verdicts.counted(verdicts.rows(report.bundle.record))}."
        yield from _each("verdicts", table.head, table.texts, said, VERDICTS)
    if table := report.table("published"):
        said = "Published numbers beside ours; one agrees if, as it was rounded, it lies within our 95 % interval."
        yield from _each("published", table.head, table.texts, said, PUBLISHED)
    if text := bibtex(report.bundle.record):
        yield "solvers.bib", (text.rstrip() + "\n").encode()


def _each(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, shares: Sequence[float]
) -> Iterator[tuple[str, bytes]]:
    yield f"{name}.md", markdown(head, rows, said).encode()
    yield f"{name}.csv", comma_separated(head, rows).encode()
    yield f"{name}.tex", latex(name, head, rows, said, shares).encode()


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], said: str) -> str:
    """Return the list as a Markdown table, with `said` above."""
    lines = [head, ["---"] * len(head), *([escape_markdown(text) for text in row] for row in rows)]
    return "\n".join([escape_markdown(said), "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def comma_separated(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the list as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([head, *([csv_text(text) for text in row] for row in rows)])
    return file.getvalue()


def latex(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, shares: Sequence[float]) -> str:
    r"""Return the list as LaTeX for \usepackage{array,booktabs,longtable}; it can span several pages.

    Its caption and label are on the first page alone.

    Args:
        shares: each column's share of \linewidth, with the space beside it; together 1.
    """
    heading = ["    \\toprule", f"    {' & '.join(map(escape_latex, head))} \\\\", "    \\midrule"]
    widths = (f"\\dimexpr {share:.2f}\\linewidth-2\\tabcolsep\\relax" for share in shares)
    columns = "".join(f"\n    >{{\\raggedright\\arraybackslash}}p{{{width}}}" for width in widths)
    return "\n".join([
        "% needs \\usepackage{array,booktabs,longtable}; a longtable can't stand in a text of two columns",
        "{\\scriptsize\\setlength{\\tabcolsep}{1.5pt}",
        f"  \\begin{{longtable}}{{{columns}}}",
        f"    \\caption{{{escape_latex(said)}}} \\label{{tab:{name}}} \\\\",
        *heading, "    \\endfirsthead", *heading, "    \\endhead", "    \\bottomrule", "    \\endfoot",
        *(f"    {' & '.join(_breakable(text) for text in row)} \\\\" for row in rows),
        "  \\end{longtable}", "}", "",
    ])  # fmt: skip


def _breakable(text: str) -> str:
    r"""Return the text for LaTeX, where lines may break after the signs within names and specs."""
    return "".join(escape_latex(piece) + ("\\allowbreak{}" if piece[-1:] in "/:=_,@" and piece else "")
                   for piece in re.split(r"(?<=[/:=_,@])(?=\S)", text))  # fmt: skip
