"""The structure of a report: blocks such as tables and figures, sections of blocks, and the report itself."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from solverbench.reports import paired
from solverbench.reports.bundle import STATUSES, Bundle
from solverbench.reports.paired import Difference, Standings
from solverbench.reports.parts import Axes, Part, axes, ranges


@dataclass(frozen=True)
class Prose:
    """One paragraph, as Markdown in report.md and as plain text on the page; empty if only the other one has it."""

    markdown: str = ""
    page: str = ""


@dataclass(frozen=True)
class Lines:
    """A list of sentences."""

    texts: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A figure of report.md, by its file's name without the ending; the page draws its own."""

    name: str
    alt: str


@dataclass(frozen=True)
class Cell:
    """A text, and the sort key of its column if it differs from the text."""

    text: str
    sort: str | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table; `kind` is "good", "bad" or empty."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Args:
        unused: columns without content, which only the table's own file keeps.
        hidden: columns that report.md leaves out.
        page_only: whether report.md leaves out the whole table.
        names: whether the first columns are names and the others numbers; the page aligns them accordingly.
        tall: whether the page gives the table its own scroll bar.
    """

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    unused: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    page_only: bool = False
    names: bool = False
    tall: bool = False

    def columns(self, page: bool) -> list[int]:
        """Return the indices of the columns that are shown on the page, or in report.md."""
        left_out = self.unused if page else (*self.unused, *self.hidden)
        return [i for i, name in enumerate(self.head) if name not in left_out]

    @property
    def texts(self) -> list[list[str]]:
        """The texts of every row."""
        return [[cell.text for cell in row.cells] for row in self.rows]


@dataclass(frozen=True)
class Numbers:
    """The values of one part; `differences` from the baseline by (label, nfe), empty if it is not among the solvers."""

    part: Part
    differences: Mapping[tuple[str, int], Difference]

    @property
    def compared(self) -> bool:
        """Whether any difference is known."""
        return any(not each.reason for each in self.differences.values())


Block = Prose | Lines | Figure | Table | Numbers


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it.

    Args:
        key: the section's kind, and its anchor on the page.
        title: its heading; none in report.md if empty.
        page_title: the page's heading, if it differs.
        link: its name in the page's navigation.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]
    page_title: str = ""
    link: str = ""


@dataclass(frozen=True)
class Report:
    """A bundle and the contents of its report.

    Args:
        baseline: the baseline of paired differences.
        marks: (mark, meaning) of the marks after names of solvers.
    """

    bundle: Bundle
    parts: tuple[Part, ...]
    baseline: str
    marks: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]

    @cached_property
    def labels(self) -> list[str]:
        """The solvers in the order of results.csv."""
        return list(dict.fromkeys(self.bundle.frame["label"]))

    @cached_property
    def teachers(self) -> list[str]:
        """The teachers in the order of results.csv."""
        return list(dict.fromkeys(self.bundle.frame["teacher"]))

    @property
    def budgets(self) -> str:
        """The budgets as text, such as "3-6, 8"."""
        return ranges(self.bundle.frame["nfe"].to_list())

    @cached_property
    def axes(self) -> Axes:
        """The options of teachers that the run varies."""
        return axes(self.bundle.record)

    @cached_property
    def titles(self) -> list[str]:
        """The teachers as text, in the order of `teachers`."""
        return [self.axes.title(name) for name in self.teachers]

    @cached_property
    def standings(self) -> tuple[tuple[str, list[Part], Standings], ...]:
        """For each metric with better values its parts, and who is ahead in the table of them."""
        ranked = [part for part in self.parts if part.ranked]
        tables = {part.metric: [each for each in ranked if each.metric == part.metric] for part in ranked}
        return tuple((metric, table, paired.standings(table, self.bundle.cells)) for metric, table in tables.items())

    @cached_property
    def cells(self) -> int:
        """The number of cells asked for."""
        return len(one_per_cell(self.bundle.frame))

    @property
    def statuses(self) -> str:
        """The statuses as text, such as "5 done, 1 failed"."""
        counts = Counter(one_per_cell(self.bundle.frame)["status"])
        return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])

    @property
    def tags(self) -> list[str]:
        """The reasons to read the report with care."""
        return [str(tag) for tag in self.bundle.record["tags"]]

    @property
    def command(self) -> str:
        """The command that made the report."""
        return str(self.bundle.record.get("command", "(command not recorded)"))

    def table(self, key: str) -> Table | None:
        """Return the first table of the first section of one kind."""
        blocks = [block for section in self.all(key) for block in section.blocks]
        return next((block for block in blocks if isinstance(block, Table)), None)

    def all(self, key: str) -> list[Section]:
        """Return the sections of one kind."""
        return [section for section in self.sections if section.key == key]

    def numbers(self) -> Iterator[tuple[Section, Numbers]]:
        """Yield the values of each part, with the section that contains them."""
        for section in self.all("part"):
            yield from ((section, block) for block in section.blocks if isinstance(block, Numbers))


def one_per_cell(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row of a frame for each cell, which has a row for each metric."""
    return frame.drop_duplicates(["teacher", "label", "nfe"])
