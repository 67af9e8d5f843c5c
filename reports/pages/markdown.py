"""A report as Markdown: the text of report.md."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from solverbench.reports.pages import overview, tables
from solverbench.reports.pages.content import Block, Figure, Lines, Numbers, Prose, Report, Section, Table
from solverbench.reports.pages.tables import escape_markdown as escape


def page(report: Report) -> str:
    """Return the text of report.md."""
    figure, *others = report.sections
    rest = (each for section in others for each in _section(section))
    paragraphs = [*_head(report), *_section(figure), *_ahead(report), *rest]
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


def _ahead(report: Report) -> Iterator[str]:
    """Yield who is ahead, a table for each metric; nothing if no budget has two solvers to compare."""
    found = [
        each
        for each in overview.rows(report)
        if any(cell["kind"] in ("won", "level") for row in each["rows"] for cell in row["cells"])
    ]
    if not found:
        return
    yield "## Who is ahead"
    for each in found:
        head = [each["label"], *report.axes.options, *(f"NFE {nfe}" for nfe in each["nfe"])]
        rows = [
            [escape(row["teacher"]), *map(escape, row["options"]), *map(_standing, row["cells"])]
            for row in each["rows"]
        ]
        yield "\n".join(map(_line, [list(map(escape, head)), ["---"] * len(head), *rows]))
    explained = max((each["explained"] for each in found), key=len)  # one has the sentence about the reference's error
    yield escape(explained).replace("ahead.csv", "[ahead.csv](ahead.csv)")


def _standing(cell: Mapping[str, Any]) -> str:
    text = escape(cell["text"])
    return f"**{text}** {cell['value']}" if cell["kind"] == "won" else text


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
