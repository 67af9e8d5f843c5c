"""The sections of a report: made once from the bundle, written as report.md and as report.html."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from solverbench.reports import paired, published, verdicts, wins
from solverbench.reports.bundle import FINISHED, Bundle
from solverbench.reports.drawing import base
from solverbench.reports.figures import bound, costs, gallery, images, plans
from solverbench.reports.figures.contents import KINDS, Source
from solverbench.reports.pages import tables, text
from solverbench.reports.pages.content import (
    Block,
    Cell,
    Figure,
    Lines,
    Numbers,
    Prose,
    Report,
    Row,
    Section,
    Table,
    one_per_cell,
)
from solverbench.reports.pages.tables import escape_markdown as escape
from solverbench.reports.parts import Part, axes, parts, slug
from solverbench.wording import interval_texts


def of(bundle: Bundle, baseline: str | None = None) -> Report:
    """Return the report of a bundle.

    Args:
        baseline: the baseline of paired differences; see `reports.paired.chosen`.
    """
    found = parts(bundle.frame, bundle.record)
    base_ = paired.chosen(bundle.frame, baseline)
    marks = tuple(tables.footnotes(bundle.frame))
    return Report(bundle, tuple(found), base_, marks, tuple(_sections(bundle, found, base_, marks)))


def _sections(
    bundle: Bundle, found: Sequence[Part], baseline: str, marks: Sequence[tuple[str, str]]
) -> Iterator[Section]:
    record, frame = bundle.record, bundle.frame
    teachers = list(dict.fromkeys(frame["teacher"]))
    yield _figure(found, record, marks)
    yield from _notes(record, found)
    yield from _bound(bundle, found)
    for part in found:
        yield _numbers(bundle, part, baseline, len(teachers) > 1)
    yield from _wins(bundle, baseline, len(teachers) > 1)
    yield from _side_by_side(found)
    yield from _further(bundle, found)
    yield from _training(found, len(teachers) > 1)
    yield from _samples(bundle, teachers)
    yield from _plans(bundle, found, teachers)
    yield from _verdicts(record)
    yield from _published(bundle)
    yield from _unfinished(frame.assign(teacher=frame["teacher"].map(axes(record).title)))
    yield _solvers(frame)
    yield from _facts(record)


def _figure(found: Sequence[Part], record: Mapping[str, Any], marks: Sequence[tuple[str, str]]) -> Section:
    said = (
        "Bars show the intervals of the tables; an invisible bar is smaller than its marker. A line has a gap "
        "where a budget has no value. Like every figure here, this one is also stored as "
        "[PDF](figure.pdf), [SVG](figure.svg), [CSV of the drawn values](figure.csv) and [script that "
        "draws it from them](figure.py). [report.html](report.html) adds tooltips, sortable tables and an image viewer."
    )
    blocks: list[Block] = [Figure("figure", "Every metric against NFE"), Prose(said)]
    if marks:
        blocks.append(Prose("Marks at names: " + " ".join(f"`{mark}` {escape(what)}." for mark, what in marks)))
    return Section("figure", "", (*blocks, *_reference_lines(found, record)))


def _reference_lines(found: Sequence[Part], record: Mapping[str, Any]) -> Iterator[Prose]:
    """Yield what the figures' horizontal lines are, and which values they leave out."""
    several, told = len({part.teacher for part in found}) > 1, {False: list[str](), True: list[str]()}
    for part in found:
        where = f" on {part.title}" if several else ""
        for line in part.lines:
            value, low, high = interval_texts(line.value, line.low, line.high)
            ends = f", {low} to {high}" if low else ""
            told[line.apart].append(f"{line.label}{where} ({part.short or part.metric}) {value}{ends}")
    if told[False] or told[True]:
        head = "Horizontal lines" if told[False] else "Reference values"
        said = f"{head}, with their 95 % intervals: {'; '.join(told[False] or told[True])}."
        if told[True]:
            more = f": {'; '.join(told[True])}" if told[False] else ""
            said += " Figures leave out those on another number of images than the solvers, as distances depend on it"
            said += f"{more}."
        yield Prose(
            f"{escape(said)} A floor is what fresh sets of "
            "the same size reach on average against the same reference: nothing is to be gained below it, and a solver "
            "whose images are as good as those of the reference lies above or below it by chance."
        )


def _notes(record: Mapping[str, Any], found: Sequence[Part]) -> Iterator[Section]:
    notes = [str(note) for note in record["notes"] if note not in record["tags"]]
    notes += [*text.below_teacher(found, notes), *text.splits(found)]
    if notes:
        yield Section("notes", "Notes", (Lines(tuple(notes)),))


def _bound(bundle: Bundle, found: Sequence[Part]) -> Iterator[Section]:
    if lines := tuple(bound.sentences(found, bundle.cells)):
        said = bound.explained(found)
        yield Section("bound", "How far to the bound", (Prose(escape(said), said), Lines(lines)))


def _numbers(bundle: Bundle, part: Part, baseline: str, several: bool) -> Section:
    """Return the section of one part: its table, and the names of the files with the same data."""
    numbers = Numbers(part, paired.against(part, baseline, bundle.cells) if baseline in part.solvers else {})
    figure = ", ".join(f"[{kind.upper()}](figure-{part.name}.{kind})" for kind in (*base.FORMATS, "csv"))
    table = f"[LaTeX](table-{part.name}.tex), [CSV](table-{part.name}.csv)"
    files = f"Figure: {figure}. Table: {table}."
    if numbers.compared:
        files += f" Paired differences: [Markdown](paired-{part.name}.md), [LaTeX](paired-{part.name}.tex)."
    later = f", part {part.number}" if part.number > 1 else ""
    title = f"{part.title}: {part.label}" if several else part.label
    return Section("part", title + later, (numbers, Prose(files)), f"{part.label}, {part.title}{later}")


def _wins(bundle: Bundle, baseline: str, several: bool) -> Iterator[Section]:
    """Yield how often each solver scores above the baseline, and the prompts at which the two differ most."""
    found = wins.against(bundle, baseline)
    if not found:
        return
    said = (
        f"Share of images whose score is better than that of {baseline}'s from the same seed and prompt, ties counted "
        "half, and the mean difference of the scores. The 95 % intervals take the images of a prompt for one cluster, "
        "so they hold for other prompts of the kind, too. A row is marked if its rate differs from 50 % after Holm's "
        "correction for the comparisons of its metric and teacher (corrected p at most .05)."
    )
    short = {name: str(each.get("short", name)) for name, each in bundle.record["metrics"].items()}
    rows = []
    title = axes(bundle.record).title
    for each in found:
        shown, *ends = interval_texts(each.difference, each.difference_low, each.difference_high, sign="+")
        texts = (
            title(each.teacher), each.label, str(each.nfe), short.get(each.metric, each.metric),
            " / ".join(f"{number:g}" for number in (each.wins, each.ties, each.losses)), " to ".join(ends),
            str(each.prompts), _p(each.p), _p(each.p_holm),
        )  # fmt: skip
        cells = list(map(Cell, texts))
        cells[4:5] = [Cell(each.text, _sort(each.rate)), cells[4], Cell(shown, _sort(each.difference))]
        rows.append(Row(tuple(cells), {1: "good", -1: "bad"}.get(each.sign, "")))
    head = ("teacher", "solver", "NFE", "metric", "win rate", "wins / ties / losses", "mean difference",
            "95 % interval", "prompts", "p", "corrected p")  # fmt: skip
    hidden = () if several else ("teacher",)
    table = Table(head, tuple(rows), hidden=hidden, tall=True)
    files = "[CSV](wins.csv), [LaTeX](wins.tex); mean scores of each prompt: [prompts.csv](prompts.csv)"
    blocks: list[Block] = [Prose(escape(said), said), table, Prose(f"Also as {files}.")]
    if extremes := _prompts(found, short, title):
        blocks += [Prose(f"Prompts whose mean score differs most from {escape(baseline)}'s:"), extremes]
    yield Section("wins", f"Win rates against {baseline}", tuple(blocks), link="Win rates")


def _prompts(found: Sequence[wins.Win], short: Mapping[str, str], title: Callable[[str], str]) -> Table | None:
    """Return the prompts at which each solver is ahead of the baseline, or behind it, by most; one of each a row."""
    rows = []
    for each in found:
        for line, gap in (*each.up[:1], *each.down[:1]):
            texts = title(each.teacher), each.label, str(each.nfe), short.get(each.metric, each.metric), line
            rows.append(Row((*map(Cell, texts), Cell(f"{gap:+.3g}", _sort(gap)))))
    head = ("teacher", "solver", "NFE", "metric", "prompt", "mean difference")
    return Table(head, tuple(rows), tall=True) if rows else None


def _side_by_side(found: Sequence[Part]) -> Iterator[Section]:
    for name, group in gallery.side_by_side(found):
        title = "Trajectory errors" if name == "trajectory" else group[0].label
        yield Section("side", f"{title}, side by side", (Figure(f"figure-{name}", "Side by side"),))


def _further(bundle: Bundle, found: Sequence[Part]) -> Iterator[Section]:
    """Yield a section for each further figure of the whole run; see `figures.contents.KINDS`."""
    for kind in KINDS.values():
        source = Source(bundle, found)
        if kind.section is not None and kind.worth(source) and kind.make(source) is not None:
            title, alt, said = kind.section
            files = f"[PDF]({kind.file}.pdf), [SVG]({kind.file}.svg) and [CSV]({kind.file}.csv)"
            more = f" {escape(_call_times(bundle, found))}" if kind is KINDS["latency"] else ""
            blocks = Figure(kind.file, alt), Prose(f"{said}{more} Also as {files}.")
            yield Section(kind.file.removeprefix("figure-"), title, blocks)


def _call_times(bundle: Bundle, found: Sequence[Part]) -> str:
    """Return what a call took, at which batch and on which device."""
    named = axes(bundle.record)
    told = [f"{named.title(each.teacher)}: {each.text}" for each in costs.call_times(found)]
    return f"Measured: {'; '.join(told)}. At another batch, or on another device, it is another number."


def _training(found: Sequence[Part], several: bool) -> Iterator[Section]:
    """Yield the cost of trainings and of searched grids, beside the values of their solvers."""
    spent = costs.made(found)
    if not spent:
        return
    said = (
        "Calls of the network times images, of all training seeds together; those of the teacher, for its images, "
        "which the seeds share, are counted once. The search of a grid has one row, whatever number of solvers and "
        "budgets it serves. Packaged: it came with the package, and this machine spent nothing; the row tells what it "
        "cost where it was made. RMSE is over the validation pairs: of the kept seed, and the largest less the "
        "smallest of all seeds."
    )
    files = " In the figure, a line joins budgets with as many training seeds and as much training for each NFE."
    files += " Also as [PDF](figure-training.pdf), [SVG](figure-training.svg) and [CSV](figure-training.csv)."
    drawn = not costs.paid(found).empty
    head, titles = tuple(spent[0].texts), {part.teacher: part.title for part in found}
    rows = tuple(
        Row(tuple(
            Cell(titles.get(text, text), repr(float(each.numbers[name])) if name in each.numbers else None)
            for name, text in each.texts.items()
        ))
        for each in spent
    )  # fmt: skip
    hidden = () if several else ("teacher",)
    table = Table(head, rows, hidden=hidden, names=True)
    figure = (Figure("figure-training", "Training cost and quality"),) if drawn else ()
    blocks = (*figure, Prose(said + files * drawn), table)
    yield Section("training", "Training", blocks, "Training cost", "Training cost")


def _samples(bundle: Bundle, teachers: Sequence[str]) -> Iterator[Section]:
    blocks: list[Block] = []
    title = axes(bundle.record).title
    for name in teachers:
        if layout := images.grid(bundle.frame, bundle.images, name):
            blocks.append(Figure(f"images-{slug(name)}", f"Samples of {title(name)}"))
            if layout.taught:
                alt = f"Differences from the teacher's images of {title(name)}"
                blocks.append(Figure(f"differences-{slug(name)}", alt))
    if blocks:
        said = (
            "The same seeds in every block. [images.html](images.html) is a page that shows them larger, compares two "
            "cells, and names the best and worst."
        )
        yield Section("samples", "Samples", (Prose(said), *blocks))


def _plans(bundle: Bundle, found: Sequence[Part], teachers: Sequence[str]) -> Iterator[Section]:
    blocks: list[Block] = []
    title = axes(bundle.record).title
    for name in teachers:
        if known := plans.of(bundle, found, name):
            blocks.append(Figure(f"levels-{slug(name)}", f"Noise levels on {title(name)}"))
            if plans.weights_budget(known) is not None:
                blocks.append(Figure(f"weights-{slug(name)}", f"Weights on {title(name)}"))
    if blocks:
        said = Prose("What is executed; the weights at the smallest budget of a learned solver.")
        yield Section("plans", "Noise levels and weights", (said, *blocks))


def _verdicts(record: Mapping[str, Any]) -> Iterator[Section]:
    found = verdicts.rows(record)
    if not found:
        return
    cautious = any(row.caution for row in found)
    brief, tested = _judged(verdicts.family(record), verdicts.below_error(record))
    said = (
        f"{verdicts.counted(found)}. {brief} Two solvers that are compared without a claim are level if they can't be "
        "told apart; otherwise one is ahead. This covers sampling error only: a learned solver trained from other "
        "seeds also changes"
    )
    if cautious:
        said += ", and a caution is given where their validation RMSE varies, relatively, by more than the difference"
    preferred = any(row.wins for row in found)
    if preferred:
        said += ". Scores of images and prompts are decided by the win rate instead of the difference"
    rate = ["win rate"] * preferred
    head = ("verdict", "claim", "metric", "difference", "95 % interval", *rate, "p", "corrected p", "caution")
    kinds = {"held": "good", "not held": "bad"}
    rows = []
    for row in found:
        tests = (Cell(_p(p), _sort(p)) for p in (row.p, row.p_holm))
        cells = [Cell(row.verdict), Cell(row.claim), Cell(row.metric), Cell(row.shown, _sort(row.difference)),
                 Cell(row.interval), *([Cell(row.wins)] * preferred), *tests, Cell(row.caution)]  # fmt: skip
        rows.append(Row(tuple(cells), kinds.get(row.verdict, "")))
    blocks = (
        Prose(f"{said}.", brief),
        Table(
            head,
            tuple(rows),
            unused=(*(() if cautious else ("caution",)), *(() if tested else ("p", "corrected p"))),
            hidden=("p",),
            tall=True,
        ),
        Prose("Also as [CSV](verdicts.csv) and [LaTeX](verdicts.tex)."),
    )
    yield Section("verdicts", "Verdicts", blocks, link="Verdicts")


def _judged(family: int, below: str) -> tuple[str, bool]:
    """Return how verdicts are judged, and whether they were corrected for their number.

    Args:
        below: what the verdict `BELOW_ERROR` means; empty if none is it.
    """
    if not family:
        return (
            "A claim is held if the paired 95 % interval of its difference lies at or below 0, not held if it lies "
            "above 0, and unresolved otherwise. These verdicts are of an earlier version, and aren't corrected for "
            "their number: of 20 comparisons of equal solvers, one is decided by chance.",
            False,
        )
    return (
        "A claim is held if its paired difference is told apart from 0 and lies below it, not held if it lies above "
        f"0, and unresolved otherwise. {below + ' ' * bool(below)}The tests are corrected for {family} "
        f"comparison{'s' * (family > 1)}, all those of this list, by Holm's step-down: the probability that any of "
        "them is decided by chance is at most .05. The intervals are those of one difference alone.",
        True,
    )


def _p(value: float) -> str:
    return "" if math.isnan(value) else "< 1e-6" if value < 1e-6 else f"{value:.2g}"


def _published(bundle: Bundle) -> Iterator[Section]:
    """Yield the comparison of published numbers with ours."""
    found = published.rows(bundle)
    if not found:
        return
    files = "[Markdown](published.md), [CSV](published.csv), [LaTeX](published.tex)"
    said = Prose(
        f"{len(found)} of them beside ours: {files}.",
        "Beside ours where a cell has the published solver's options. A number agrees if, as it was rounded, it lies "
        "within our interval; read it with the differences in protocol.",
    )
    title = axes(bundle.record).title
    head = ("row", "teacher", "metric", "solver", "NFE", "published", "ours", "95 % interval", "difference", "agrees",
            "differences in protocol")  # fmt: skip
    rows = tuple(
        Row((Cell(row.row), Cell(title(row.teacher)), Cell(row.metric), Cell(row.solver), Cell(str(row.nfe)),
             Cell(row.published), Cell(row.ours, _sort(row.value)), Cell(row.interval),
             Cell(row.difference, _sort(row.apart)), Cell(row.agrees), Cell(row.protocol)))
        for row in found
    )  # fmt: skip
    table = Table(head, rows, page_only=True, tall=True)
    yield Section("published", "Published numbers", (said, table), link="Published")


def _unfinished(frame: pd.DataFrame) -> Iterator[Section]:
    """Yield every cell that is neither done nor cached, with its whole reason."""
    cells = one_per_cell(frame[~frame["status"].isin(FINISHED)])
    if len(cells):
        columns = ("teacher", "label", "nfe", "status", "reason")
        rows = tuple(_row([str(row[column]) for column in columns]) for _, row in cells.iterrows())
        table = Table(("teacher", "solver", "NFE", "status", "reason"), rows)
        yield Section("unfinished", "Cells without a result", (table,), link="Without a result")


def _solvers(frame: pd.DataFrame) -> Section:
    """Return the meaning of each solver name, written out."""
    rows = []
    for label in dict.fromkeys(frame["label"]):
        own = frame[frame["label"] == label]
        specs = [spec for spec in dict.fromkeys(own["spec"]) if spec]
        kind = "learned" if own["learned"].any() else "classical"
        rows.append(_row([str(label), ", ".join(specs) or str(label), kind]))
    return Section("solvers", "Solvers", (Table(("solver", "written out", "kind"), tuple(rows)),))


def _facts(record: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the protocol and the environment, each a table of names and values without a head."""
    for name in ("protocol", "environment"):
        if record[name]:
            rows = tuple(_row([str(key), text.flat(value)]) for key, value in record[name].items())
            yield Section("facts", name.capitalize(), (Table(("", ""), rows),))


def _row(texts: Sequence[str]) -> Row:
    return Row(tuple(map(Cell, texts)))


def _sort(value: float) -> str | None:
    return repr(value) if math.isfinite(value) else None
