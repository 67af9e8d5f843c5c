"""Lists of a report as Markdown, CSV and LaTeX: verdicts, published numbers beside ours, BibTeX of the solvers."""

import csv
import io
from collections.abc import Iterator, Sequence

from solverbench.reports import published, verdicts
from solverbench.reports.bundle import Bundle
from solverbench.reports.pages.tables import escape_latex, escape_markdown


def files(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    """The files of those lists that hold something: name and content."""
    if found := verdicts.rows(bundle.record):
        head = ["verdict", "claim", "metric", "difference", "95 % interval", "caution"]
        rows = [[row.verdict, row.claim, row.metric, row.shown, row.interval, row.caution] for row in found]
        yield from _each("verdicts", head, rows, f"{verdicts.counted(found)}.", "lp{4.6cm}lrrp{4.2cm}")
    if printed := published.rows(bundle):
        head = ["row", "teacher", "metric", "solver", "NFE", "published", "ours", "95 % interval", "difference",
                "agrees", "differences in protocol"]  # fmt: skip
        texts = [
            [row.row, row.teacher, row.metric, row.solver, str(row.nfe), row.published, row.ours, row.interval,
             row.difference, row.agrees, row.protocol]
            for row in printed
        ]  # fmt: skip
        said = "Published numbers beside ours; one agrees if, as it was rounded, it lies within our 95 % interval."
        yield from _each("published", head, texts, said, "p{2.4cm}p{1.2cm}p{1.5cm}lrrrlrlp{3cm}")
    if text := str(bundle.record.get("bibtex", "")):
        yield "solvers.bib", (text.rstrip() + "\n").encode()


def _each(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, columns: str
) -> Iterator[tuple[str, bytes]]:
    yield f"{name}.md", markdown(head, rows, said).encode()
    yield f"{name}.csv", comma_separated(head, rows).encode()
    yield f"{name}.tex", latex(name, head, rows, said, columns).encode()


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], said: str) -> str:
    """The list as a Markdown table, `said` above."""
    lines = [head, ["---"] * len(head), *([escape_markdown(text) for text in row] for row in rows)]
    return "\n".join([escape_markdown(said), "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def comma_separated(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The list as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([head, *rows])
    return file.getvalue()


def latex(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], said: str, columns: str) -> str:
    r"""The list as LaTeX for \usepackage{booktabs,longtable}: it may run over several pages."""
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
