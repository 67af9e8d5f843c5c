"""A report as Markdown: the text of report.md."""

import re
from collections.abc import Iterator, Sequence

from solverbench.reports.pages import tables
from solverbench.reports.pages.content import Block, Figure, Lines, Numbers, Prose, Report, Section, Table
from solverbench.reports.pages.tables import escape_markdown as escape


def page(report: Report) -> str:
    """Return the text of report.md."""
    paragraphs = [*_head(report), *(each for section in report.sections for each in _section(section))]
    lines = [line.rstrip() for paragraph in paragraphs for line in (*paragraph.split("\n"), "")]
    return "\n".join(lines).rstrip() + "\n"


def _head(report: Report) -> Iterator[str]:
    """Yield the paragraphs above the first figure."""
    yield "# " + escape(f"{', '.join(report.labels)} at NFE {report.budgets} on {'; '.join(report.titles)}")
    if report.tags:
        head, *rest = map(escape, report.tags)
        told = ["", *(f"> - {each}" for each in (head, *rest))] if rest else [f" {head}"]
        yield f"> **Read with care:**{chr(10).join(told)}"
    fence = "`" * max(
        3, 1 + max(map(len, re.findall("`+", report.command)), default=0)
    )  # longer than any in the command
    yield "\n".join([fence, *report.command.splitlines(), fence])
    yield f"{report.cells} cell{'s' * (report.cells != 1)} asked for: {report.statuses}."


def _section(section: Section) -> Iterator[str]:
    if section.title:
        yield f"## {escape(section.title)}"
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    """Yield the block's paragraph, unless only the page has it."""
    match block:
        case Prose():
            if block.markdown:
                yield block.markdown
        case Lines():
            yield "\n".join(f"- {escape(line)}" for line in block.texts)
        case Figure():
            yield f"![{escape(block.alt)}]({block.name}.png)"
        case Numbers():
            yield tables.markdown(block.part).rstrip()
        case Table():
            if not block.page_only:
                yield _table(block)


def _table(table: Table) -> str:
    shown = table.columns(page=False)
    rows = [[escape(row.cells[i].text) for i in shown] for row in table.rows]
    return "\n".join(map(_line, [[table.head[i] for i in shown], ["---"] * len(shown), *rows]))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
