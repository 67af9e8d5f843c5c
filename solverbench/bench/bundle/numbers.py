"""The numbers of a run as tables, solvers down and budgets across: what a run prints at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from solverbench.bench.bundle.table import _metrics
from solverbench.bench.bundle.trainings import pooled
from solverbench.bench.outcome import Outcome
from solverbench.metrics import plugin, table
from solverbench.wording import printable, wrapped

GAP = "  "
"""Space between two columns of a plain table."""


@dataclass(frozen=True)
class Entry:
    """A cell's place in a table.

    Args:
        value: the value, with a star if it has a flag; or the cell's status if it has none.
        half: half the width of its 95 % interval, such as `±0.003`; empty without a value.
        best: whether no other solver has a better value with as many calls.
    """

    value: str
    half: str = ""
    best: bool = False

    @property
    def whole(self) -> str:
        """The value with its interval."""
        return " ".join(filter(None, (self.value, self.half)))


@dataclass(frozen=True)
class Table:
    """The values of one metric on one teacher.

    Args:
        title: metric, teacher, number of images, and which values are better.
        budgets: numbers of calls, the columns.
        rows: solver to its entries, one for each budget.
    """

    title: str
    budgets: Sequence[int]
    rows: Sequence[tuple[str, Sequence[Entry]]]

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table under its title."""
        head = ["solver", *map(str, self.budgets)]
        body = [[solver.replace("|", "\\|"), *(each.whole for each in entries)] for solver, entries in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = ["| " + " | ".join(_padded(row, widths)) + " |" for row in (head, *body)]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return [self.title, "", lines[0], rule, *lines[1:]]

    def plain(self, width: int, bold: Callable[[str], str]) -> list[str]:
        """Return lines for a terminal: with intervals if they fit, else without; budgets that don't fit follow below.

        Args:
            width: characters in a line.
            bold: text to the same text in bold, for the best solver of each budget.
        """
        names = max(map(len, ["solver", *(solver for solver, _ in self.rows)]))
        wide = [max(len(each.whole) for each in column) for column in self._columns]
        slim = [max(len(each.value) for each in column) for column in self._columns]
        fits = names + len(GAP) * len(wide) + sum(wide) <= width
        widths = [max(size, len(str(n))) for size, n in zip(wide if fits else slim, self.budgets, strict=True)]
        lines = wrapped(self.title, width)
        for part in _parts(widths, width - names):
            chosen = widths[part]
            lines.append(GAP.join(_padded(["solver", *map(str, self.budgets[part])], [names, *chosen])).rstrip())
            for solver, entries in self.rows:
                texts = _padded([each.whole if fits else each.value for each in entries[part]], chosen)
                shown = [bold(text) if each.best else text for text, each in zip(texts, entries[part], strict=True)]
                lines.append(GAP.join([printable(f"{solver:<{names}}"), *shown]).rstrip())
        return lines

    @property
    def _columns(self) -> Iterator[list[Entry]]:
        for place in range(len(self.budgets)):
            yield [entries[place] for _, entries in self.rows]


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Return a table for each teacher and metric with a value, in the order of reports.

    Training seeds are one row, their mean. Why there is no value is told by each cell and by `cells.lacking`.
    """
    outcomes, found = pooled(outcomes), []
    for teacher in dict.fromkeys(outcome.cell.teacher.name for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.cell.teacher.name == teacher]
        budgets = sorted({outcome.cell.nfe for outcome in own})
        valued = {metric for outcome in own for metric in outcome.measures}
        for metric in table.ordered({metric for outcome in own for metric in _metrics(outcome.cell)} & valued):
            found.append(_table(own[0].cell.teacher.shown, metric, budgets, own))
    return found


def _table(teacher: str, metric: str, budgets: Sequence[int], outcomes: Sequence[Outcome]) -> Table:
    told = plugin.described(metric)
    higher = told.higher
    there = {(outcome.cell.solver, outcome.cell.nfe): outcome for outcome in outcomes}
    best = {
        nfe: (max if higher else min)(
            (each.measures[metric].value for (_, n), each in there.items() if n == nfe and metric in each.measures),
            default=None,
        )
        if told.ranked
        else None
        for nfe in budgets
    }
    rows = [
        (solver, [_entry(there.get((solver, nfe)), metric, best[nfe]) for nfe in budgets])
        for solver in dict.fromkeys(outcome.cell.solver for outcome in outcomes)
    ]
    measured = [each for each in outcomes if metric in each.measures]
    facts = [f"n={measured[0].measures[metric].n}x{measured[0].cell.protocol.replicates}"] if measured else []
    facts += ["biased, because n is small"] if any(each.biased(metric) for each in measured) else []
    facts += [f"{'higher' if higher else 'lower'} is better" if told.ranked else "0 is the teacher's"]
    starred = "; * flagged, see below" if any(each.flags(metric) for each in measured) else ""
    return Table(f"{metric} on {teacher} ({', '.join(facts)}{starred})", budgets, rows)


def _entry(outcome: Outcome | None, metric: str, best: float | None) -> Entry:
    if outcome is None:
        return Entry("-")
    found = outcome.measures.get(metric)
    if found is None:
        return Entry("-" if outcome.measures else outcome.status)
    star = "*" * bool(outcome.flags(metric))
    value, half = found.texts
    return Entry(f"{value}{star}", f"±{half}", found.value == best)


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [f"{text:<{width}}" for text, width in zip(row, widths, strict=True)]


def _parts(widths: Sequence[int], room: int) -> Iterator[slice]:
    """Yield the columns in parts that fit into `room` characters; a column that is too wide stands alone."""
    begin = used = 0
    for place, width in enumerate(widths):
        used += len(GAP) + width
        if used > room and place > begin:
            yield slice(begin, place)
            begin, used = place, len(GAP) + width
    yield slice(begin, len(widths))
