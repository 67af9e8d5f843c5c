"""The report of a run: report.md with its figures, tables and image grids, written into the bundle's own folder."""

from collections.abc import Iterator
from pathlib import Path

from solverbench.reports import files
from solverbench.reports.bundle import BundleError, load
from solverbench.reports.figures import gallery, widths
from solverbench.reports.figures.widths import Width
from solverbench.reports.pages import html, lists, markdown, sections, tables, viewer
from solverbench.reports.pages.content import Report


def write(folder: str | Path, *, width: str | Width | None = None, baseline: str | None = None) -> list[Path]:
    """Write the report's files into `folder`, each atomically; return their paths, report.md last.

    Args:
        width: the venue whose columns the figures fit: icml, cvpr, neurips, iclr.
        baseline: the baseline of paired differences; if None, dpm or else the first classical solver.
    Raises: BundleError if the folder holds no valid bundle or is not writable, or the venue or solver is unknown.
    """
    bundle, wide = load(folder), widths.width(width)
    report = sections.of(bundle, baseline)
    written = []
    try:
        for name, content in _pages(report):
            files.put(bundle.folder / name, content)
            written.append(bundle.folder / name)
        written += gallery.write(bundle, report.parts, wide)
        last = bundle.folder / "report.md"  # last, so that the files it refers to exist
        files.put(last, markdown.page(report).encode())
    except OSError as error:
        raise BundleError(
            asked=bundle.folder, wrong=f"the report cannot be written ({error})", remedy="free or unlock the folder"
        ) from error
    return [*written, last]


def _pages(report: Report) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of every file of the page and the tables."""
    yield "report.html", html.page(report).encode()  # first: it can be read while figures are drawn
    if (text := viewer.page(report)) is not None:
        yield viewer.NAME, text.encode()
    for _, numbers in report.numbers():
        part = numbers.part
        yield f"table-{part.name}.md", tables.markdown(part).encode()
        yield f"table-{part.name}.csv", tables.comma_separated(part).encode()
        yield f"table-{part.name}.tex", tables.latex(part).encode()
        if numbers.compared:
            for kind, text in tables.differences(part, report.baseline, numbers.differences).items():
                yield f"paired-{part.name}.{kind}", text.encode()
    yield from lists.files(report)
