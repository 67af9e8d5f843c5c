"""The report of a run: report.md with its figures, tables and image grids, written into the bundle's own folder."""

from collections.abc import Iterator
from pathlib import Path

from solverbench.reports.bundle import BundleError, load
from solverbench.reports.figures import gallery, widths
from solverbench.reports.figures.widths import Width
from solverbench.reports.pages import html, lists, markdown, sections, tables
from solverbench.reports.pages.sections import Report


def write(folder: str | Path, *, width: str | Width | None = None, baseline: str | None = None) -> list[Path]:
    """The files written into `folder`, report.md last; each is put in its place whole or not at all.

    Args:
        width: the venue whose columns the figures fit: icml, cvpr, neurips, iclr.
        baseline: the solver that paired differences are taken from; dpm, or the first classical one, if None.
    Raises: BundleError where the folder holds no sound bundle, or cannot be written to; for a venue or solver that is
        not known.
    """
    bundle, wide = load(folder), widths.width(width)
    report = sections.of(bundle, baseline)
    written = []
    try:
        for name, content in _pages(report):
            gallery.put(bundle.folder / name, content)
            written.append(bundle.folder / name)
        written += gallery.write(bundle, report.parts, wide)
        last = bundle.folder / "report.md"  # last: what it shows is there
        gallery.put(last, markdown.page(report).encode())
    except OSError as error:
        raise BundleError(
            f"{bundle.folder}: the report cannot be written ({error}); free or unlock the folder"
        ) from error
    return [*written, last]


def _pages(report: Report) -> Iterator[tuple[str, bytes]]:
    """The page and the tables: every file's name and content."""
    yield "report.html", html.page(report).encode()  # first: it can be read while figures are drawn
    for _, numbers in report.numbers():
        part = numbers.part
        yield f"table-{part.name}.md", tables.markdown(part).encode()
        yield f"table-{part.name}.csv", tables.comma_separated(part).encode()
        yield f"table-{part.name}.tex", tables.latex(part).encode()
        if numbers.compared:
            for kind, text in tables.differences(part, report.baseline, numbers.differences).items():
                yield f"paired-{part.name}.{kind}", text.encode()
    yield from lists.files(report)
