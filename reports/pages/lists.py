"""Lists of a report as Markdown, CSV and LaTeX: verdicts, published numbers beside ours, BibTeX of the solvers."""

import csv
import io
from collections.abc import Iterator, Sequence

from solverbench.reports import verdicts
from solverbench.reports.pages.sections import Report
from solverbench.reports.pages.tables import escape_latex, escape_markdown


def files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files of the lists that are not empty."""
    if table := report.table("verdicts"):
        said = f"{verdicts.counted(verdicts.rows(report.bundle.record))}."
        yield from _each("verdicts", table.head, table.texts, said, "lp{4.6cm}lrrp{4.2cm}")
    if table := report.table("published"):
        said = "Published numbers beside ours; one agrees if, as it was rounded, it lies within our 95 % interval."
        yield from _each("published", table.head, table.texts, said, "p{2.4cm}p{1.2cm}p{1.5cm}lrrrlrlp{3cm}")
    if text := str(report.bundle.record.get("bibtex", "")):
        yield "solvers.bib", (text.rstrip() + "\n").encode()


def _each(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, columns: str
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
    csv.writer(file, lineterminator="\n").writerows([head, *rows])
    return file.getvalue()


def latex(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, columns: str) -> str:
    r"""Return the list as LaTeX for \usepackage{booktabs,longtable}; it can span several pages."""
    titles = f"    {' & '.join(map(escape_latex, head))} \\\\"
    return "\n".join([
        "% needs \\usepackage{booktabs,longtable}; a longtable stands in one column",
        "{\\scriptsize\\setlength{\\tabcolsep}{2.5pt}",
        f"  \\begin{{longtable}}{{{columns}}}",
        f"    \\caption{{{escape_latex(said)}}} \\label{{tab:{name}}} \\\\",
        "    \\toprule", titles, "    \\midrule", "    \\endhead", "    \\bottomrule", "    \\endfoot",
        *(f"    {' & '.join(escape_latex(text) for text in row)} \\\\" for row in rows),
        "  \\end{longtable}", "}", "",
    ])  # fmt: skip
