"""The text of report.md."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from solverbench.reports import paired, published, verdicts
from solverbench.reports.bundle import FINISHED, STATUSES, Bundle
from solverbench.reports.figures import base, bound, costs, gallery, images, plans
from solverbench.reports.pages import tables
from solverbench.reports.pages.tables import escape_markdown as escape
from solverbench.reports.pages.text import below_teacher, flat, splits
from solverbench.reports.parts import Part, parts, ranges, slug


def page(bundle: Bundle, baseline: str | None = None) -> str:
    """The text of report.md."""
    found = parts(bundle.frame, bundle.record)
    return (
        "\n".join(
            line.rstrip() for block in _blocks(bundle, found, baseline) for line in (*block.split("\n"), "")
        ).rstrip()
        + "\n"
    )


def _blocks(bundle: Bundle, found: Sequence[Part], baseline: str | None) -> Iterator[str]:
    """The paragraphs of the page, in order."""
    record, frame = bundle.record, bundle.frame
    solvers, teachers = list(dict.fromkeys(frame["label"])), list(dict.fromkeys(frame["teacher"]))
    budgets = ranges(frame["nfe"].to_list())
    yield "# " + escape(f"{', '.join(solvers)} at NFE {budgets} on {', '.join(teachers)}")
    if record["tags"]:
        yield "> **Read with care:** " + "; ".join(escape(str(tag)) for tag in record["tags"])
    yield "\n".join(["```", *str(record.get("command", "(command not recorded)")).splitlines(), "```"])
    yield _counts(frame)
    yield "![Every metric against NFE](figure.png)"
    yield (
        "Bars are the intervals of the tables; where none is seen it is smaller than its marker. A line breaks at a "
        "budget without a value. Also as [PDF](figure.pdf), [SVG](figure.svg), [CSV of what is drawn](figure.csv) and "
        "[script that draws it again from that](figure.py); so is every figure here. To hover, sort and flip through, "
        "open [report.html](report.html)."
    )
    if marks := tables.footnotes(frame):
        yield "Marks at names: " + " ".join(f"`{mark}` {escape(text)}." for mark, text in marks)
    yield from _reference_lines(record)
    notes = [str(note) for note in record["notes"]]
    notes += [*below_teacher(found, notes), *splits(found)]
    if notes:
        yield "## Notes\n\n" + "\n".join(f"- {escape(note)}" for note in notes)
    if lines := list(bound.sentences(found, bundle.cells)):
        told = "\n".join(f"- {escape(line)}" for line in lines)
        yield f"## How far to the bound\n\n{escape(bound.explained(found))}\n\n{told}"
    for part in found:
        heading = part.label if len(teachers) == 1 else f"{part.teacher}: {part.label}"
        yield f"## {escape(heading)}" + (f", part {part.number}" if part.number > 1 else "")
        yield tables.markdown(part).rstrip()
        beside = paired.chosen(bundle.frame, baseline)
        compared = paired.against(part, beside, bundle.cells) if beside in part.solvers else {}
        yield _links(part.name, any(not each.reason for each in compared.values()))
    for name, group in gallery.side_by_side(found):
        yield f"## {'Trajectory errors' if name == 'trajectory' else escape(group[0].label)}, side by side"
        yield f"![Side by side](figure-{name}.png)"
    if not costs.speeds(found).empty:
        yield "## Speed\n\n![Images per second and quality](figure-speed.png)"
        yield (
            "On the machine and at the batch of the run; dotted: cells that no other one beats in both. Also as "
            "[PDF](figure-speed.pdf), [SVG](figure-speed.svg) and [CSV](figure-speed.csv)."
        )
    yield from _training(found, len(teachers) > 1)
    yield from _pictures(bundle, teachers)
    yield from _levels(bundle, found, teachers)
    yield from _verdicts(record)
    yield from _published(bundle)
    yield from _unfinished(frame)
    yield _solvers(frame)
    for name in ("protocol", "environment"):
        if record[name]:
            rows = [(str(key), flat(value)) for key, value in record[name].items()]
            yield f"## {name.capitalize()}\n\n{_table(('', ''), rows)}"


def _reference_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What the horizontal lines of the figures are."""
    shown = [
        f"{line['label']} ({record['metrics'].get(line.get('metric'), {}).get('short', line.get('metric'))}) "
        f"{line['value']:.3g}" + (f", {line['low']:.3g} to {line['high']:.3g}" if "low" in line else "")
        for line in record["lines"]
    ]
    if shown:
        yield (
            f"Horizontal lines, with their 95 % intervals: {escape('; '.join(shown))}. A floor is what fresh sets of "
            "the same size reach on average against the same reference: nothing is to be gained below it, and a solver "
            "whose images are as good as those of the reference lies above or below it by chance."
        )


def _counts(frame: pd.DataFrame) -> str:
    cells = frame.drop_duplicates(["teacher", "label", "nfe"])
    counts = Counter(cells["status"])
    listed = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(cells)} cell{'s' * (len(cells) != 1)} asked for: {listed}."


def _verdicts(record: Mapping[str, Any]) -> Iterator[str]:
    found = verdicts.rows(record)
    if not found:
        return
    cautious = any(row.caution for row in found)
    head = ["verdict", "claim", "metric", "difference", "95 % interval", *(["caution"] if cautious else [])]
    rows = [[row.verdict, row.claim, row.metric, row.shown, row.interval, row.caution] for row in found]
    yield (
        f"## Verdicts\n\n{verdicts.counted(found)}. A claim is held if the paired interval of its difference lies "
        "at or below 0, not held if above, else unresolved; where two are set against each other without a claim, "
        "neither is ahead, they are level, if it holds 0. The interval is sampling error: a learned solver trained "
        "again from other seeds moves too"
        + (
            ", and a caution says where their validation RMSE spreads, relatively, by more than the difference"
            if cautious
            else ""
        )
        + ".\n\n"
        + _table(head, rows if cautious else [row[:-1] for row in rows])
        + "\n\nAlso as [CSV](verdicts.csv) and [LaTeX](verdicts.tex)."
    )


def _published(bundle: Bundle) -> Iterator[str]:
    """Where published numbers stand beside ours."""
    if rows := published.rows(bundle):
        yield (
            f"## Published numbers\n\n{len(rows)} of them beside ours: [Markdown](published.md), [CSV](published.csv), "
            "[LaTeX](published.tex)."
        )


def _links(name: str, compared: bool) -> str:
    figure = ", ".join(f"[{kind.upper()}](figure-{name}.{kind})" for kind in (*base.FORMATS, "csv"))
    table = ", ".join(f"[{text}](table-{name}.{kind})" for text, kind in (("LaTeX", "tex"), ("CSV", "csv")))
    paired_ = f" Paired differences: [Markdown](paired-{name}.md), [LaTeX](paired-{name}.tex)." if compared else ""
    return f"Figure: {figure}. Table: {table}.{paired_}"


def _training(found: Sequence[Part], several: bool) -> Iterator[str]:
    """What the learned solvers took to train, beside what they reach."""
    rows = costs.rows(found)
    if rows.empty:
        return
    yield "## Training\n\n![Training cost and quality](figure-training.png)"
    yield (
        "Calls of the network times images, of all training seeds together; those of the teacher, for its images, "
        "which the seeds share, are counted once. RMSE is over the validation pairs: of the kept seed, and the largest "
        "less the smallest of all seeds. Also as [PDF](figure-training.pdf), [SVG](figure-training.svg) and "
        "[CSV](figure-training.csv)."
    )
    text = costs.text(rows)
    yield _table([str(name) for name in text.columns if several or name != "teacher"],
                 [[str(value) for name, value in row.items() if several or name != "teacher"]
                  for _, row in text.iterrows()])  # fmt: skip


def _pictures(bundle: Bundle, teachers: Sequence[str]) -> Iterator[str]:
    shown = [name for name in teachers if images.grid(bundle.frame, bundle.images, name)]
    if shown:
        yield "## Samples\n\nThe same seeds in every block."
        for name in shown:
            yield f"![Samples of {escape(name)}](images-{slug(name)}.png)"
            if (layout := images.grid(bundle.frame, bundle.images, name)) and layout.taught:
                yield f"![Differences from the teacher's images of {escape(name)}](differences-{slug(name)}.png)"


def _levels(bundle: Bundle, found: Sequence[Part], teachers: Sequence[str]) -> Iterator[str]:
    shown = {name: known for name in teachers if (known := plans.of(bundle, found, name))}
    if shown:
        yield "## Noise levels and weights\n\nWhat is executed; the weights at the smallest budget of a learned solver."
        for name, known in shown.items():
            yield f"![Noise levels on {escape(name)}](levels-{slug(name)}.png)"
            if plans.weights_budget(known) is not None:
                yield f"![Weights on {escape(name)}](weights-{slug(name)}.png)"


def _unfinished(frame: pd.DataFrame) -> Iterator[str]:
    """Every cell that is neither done nor cached, with its whole reason."""
    cells = frame[~frame["status"].isin(FINISHED)].drop_duplicates(["teacher", "label", "nfe"])
    if len(cells):
        columns = ("teacher", "label", "nfe", "status", "reason")
        rows = [tuple(str(row[column]) for column in columns) for _, row in cells.iterrows()]
        yield f"## Cells without a result\n\n{_table(('teacher', 'solver', 'NFE', 'status', 'reason'), rows)}"


def _solvers(frame: pd.DataFrame) -> str:
    """What each name stands for, written out."""
    rows = []
    for label in dict.fromkeys(frame["label"]):
        own = frame[frame["label"] == label]
        specs = [spec for spec in dict.fromkeys(own["spec"]) if spec]
        rows.append((str(label), ", ".join(specs) or str(label), "learned" if own["learned"].any() else "classical"))
    return f"## Solvers\n\n{_table(('solver', 'written out', 'kind'), rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
