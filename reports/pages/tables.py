"""Tables of one part: solvers as rows, NFE as columns, as Markdown, CSV and LaTeX (booktabs).

The best value of each NFE is bold, and those whose interval overlaps the best's are marked. A cell without a value
shows a short mark, and the legend says why. Digits follow the standard error.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import pandas as pd

from solverbench.reports import paired
from solverbench.reports.bundle import FLAGGED, INFERRED, MARKS, MEANINGS, METRIC_LOSS, REFERENCE_ERROR, excluded
from solverbench.reports.paired import Difference, tested
from solverbench.reports.parts import Part, grouped, ranges
from solverbench.wording import BELOW_ERROR, csv_text, decimals, number_text

Rank = Literal["best", "tied", ""]
MASKED = "§"
"""Mark of a difference whose interval excludes 0 but that is smaller than the error of the reference."""
UNRANKED = "The teacher's value is 0; neither higher nor lower values are better."
_LACKING = "?"
_SIGNS = {"-": "--"}  # in LaTeX
_REASON = 300  # characters of a reason in a legend; twice as many for a reason shared by several solvers


@dataclass(frozen=True)
class Entry:
    """One cell of a table: `value` and `margin` (half the interval) as text, or a mark and the reason for it.

    Args:
        flags: what a reader should know about the value, sentences joined by "; "; such a value is never marked best,
            unless the only one is about the error of its reference.
    """

    value: str = ""
    margin: str = ""
    rank: Rank = ""
    mark: str = ""
    reason: str = ""
    flags: str = ""

    @property
    def flag(self) -> str:
        """The mark after the value."""
        return FLAGGED * bool(self.flags)


_made: "WeakKeyDictionary[Part, Mapping[tuple[str, int], Entry]]" = WeakKeyDictionary()


def entries(part: Part) -> Mapping[tuple[str, int], Entry]:
    """Return every cell of the table by (label, nfe). A report asks ten times for those of each part."""
    if part not in _made:
        _made[part] = _entries(part)
    return _made[part]


def _entries(part: Part) -> dict[tuple[str, int], Entry]:
    found = dict[tuple[str, int], Entry]()
    for nfe in part.nfe:
        rows = part.frame[part.frame["nfe"] == nfe]
        columns = [rows[column].to_list() for column in ("value", "low", "high")]
        if part.higher:
            columns = [[-number for number in columns[i]] for i in (0, 2, 1)]
        unranked = (rows["metric_loss"] | excluded(rows) | (not part.ranked)).to_list()
        ranks = _ranks(columns[0], columns[1], columns[2], unranked)
        for rank, (_, row) in zip(ranks, rows.iterrows(), strict=True):
            key = (str(row["label"]), nfe)
            if math.isnan(row["value"]):
                found[key] = Entry(mark=MARKS.get(str(row["status"]), "?"), reason=str(row["reason"]))
            else:
                margin = max(row["high"] - row["value"], row["value"] - row["low"])  # one end may be cut
                places = decimals(row["value"], row["std_error"])
                shown = "" if math.isnan(margin) else number_text(margin, places)
                value = number_text(row["value"], places)
                found[key] = Entry(value=value, margin=shown, rank=rank, flags=str(row["flags"]))
    return found


def markdown(part: Part) -> str:
    """Return the table as Markdown, with its caption above and its legend below."""
    cells = entries(part)
    head = ["solver", *(f"NFE {nfe}" for nfe in part.nfe)]
    lines = [_row(head), _row(["---", *["---:"] * len(part.nfe)])]
    for label in part.solvers:
        lines.append(_row([escape_markdown(label), *(_markdown(cells.get((label, nfe), Entry())) for nfe in part.nfe)]))
    legend = [f"- `{mark}` {text}" for mark, text in legends(part, escape_markdown)]
    best = "highest" if part.higher else "lowest"
    marking = f"**Bold**: {best} at that NFE; _italic_: its interval overlaps the {best} one's."
    marking = marking if part.ranked else UNRANKED
    if _margins(cells):
        marking += f" ± is half the interval's width ({escape_markdown(part.interval)})."
    return "\n".join([escape_markdown(caption(part)), "", *lines, "", marking, *([""] if legend else []), *legend, ""])


def comma_separated(part: Part) -> str:
    """Return the table as CSV: for each NFE the value as shown or its mark, half the interval, and the rank."""
    cells = entries(part)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["solver", *(f"NFE {nfe}{what}" for nfe in part.nfe for what in ("", " ±", " rank"))])
    for label in part.solvers:
        row = [cells.get((label, nfe), Entry()) for nfe in part.nfe]
        writer.writerow(
            [csv_text(label), *(text for cell in row for text in (cell.value or cell.mark, cell.margin, cell.rank))]
        )
    return file.getvalue()


def latex(part: Part) -> str:
    r"""Return the table as LaTeX for \usepackage{booktabs,graphicx}, with caption, label and the legend as a note.

    A table that is wider than its column, or than the page for `table*`, is made smaller.
    """
    cells = entries(part)
    best = "highest" if part.higher else "lowest"
    marking = f"Bold: {best} at that NFE; underlined: its interval overlaps the {best} one's."
    said = f"{caption(part)} {marking if part.ranked else UNRANKED}"
    if _margins(cells):
        said += f" Small: half the interval's width ({part.interval})."
    table = "table*" if len(part.nfe) > 4 else "table"  # table*: across both columns of a page
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        f"\\begin{{{table}}}",
        "  \\centering",
        "  \\small" if len(part.nfe) < 7 else "  \\footnotesize",
        "  \\setlength{\\tabcolsep}{3pt}",
        f"  \\caption{{{escape_latex(said)}}}",
        f"  \\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', part.name)}}}",
        f"  {_FITTED}\\begin{{tabular}}{{l{'r' * len(part.nfe)}}}",
        "    \\toprule",
        f"    & \\multicolumn{{{len(part.nfe)}}}{{c}}{{NFE}} \\\\",
        f"    \\cmidrule(l){{2-{len(part.nfe) + 1}}}",
        f"    Solver & {' & '.join(map(str, part.nfe))} \\\\",
        "    \\midrule",
        *(
            f"    {escape_latex(label)} & {' & '.join(_latex(cells.get((label, n), Entry())) for n in part.nfe)} \\\\"
            for label in part.solvers
        ),
        "    \\bottomrule",
        "  \\end{tabular}}",
    ]
    notes = [f"  {_SIGNS.get(mark, escape_latex(mark))}: {text}" for mark, text in legends(part, escape_latex)]
    if notes:
        lines += ["  \\par\\smallskip\\footnotesize\\raggedright", " \\\\\n".join(notes)]
    return "\n".join([*lines, f"\\end{{{table}}}", ""])


def differences(part: Part, baseline: str, found: Mapping[tuple[str, int], Difference]) -> dict[str, str]:
    r"""Return paired differences from a baseline as {"md", "csv", "tex"}; bold where the corrected test has a sign."""
    said = (
        f"{part.label}, teacher {part.title}: value less that of {baseline} at the same NFE, paired by seed, with "
        f"its 95 % interval. Bold: told apart from 0, {correction(tested(found.values()))}. "
        f"{('Higher' if part.higher else 'Lower') + ' values are better.' if part.ranked else UNRANKED}"
        f"{masked_legend(found.values())}"
    )
    labels = [label for label in part.solvers if label != baseline]
    head = ["solver", *(f"NFE {nfe}" for nfe in part.nfe)]
    lines = [_row(head), _row(["---", *["---:"] * len(part.nfe)])]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["solver", "NFE", "difference", "low", "high", "p", "p_holm", "missing", "verdict"])
    body = []
    for label in labels:
        each = [found.get((label, nfe), Difference(reason="not asked for")) for nfe in part.nfe]
        lines.append(_row([escape_markdown(label), *map(_apart, each)]))
        body += _apart_latex(label, each)
        for nfe, one in zip(part.nfe, each, strict=True):
            each_number = (one.value, one.low, one.high, one.p, one.p_holm)
            numbers = ["" if one.reason else repr(number) for number in each_number]
            verdict = "" if one.reason else "apart" if one.sign else BELOW_ERROR if one.masked else "level"
            writer.writerow([csv_text(label), nfe, *numbers, csv_text(one.reason), verdict])
    table = "table*" if len(part.nfe) > 2 else "table"
    tex = [
        "% needs \\usepackage{booktabs,graphicx}", f"\\begin{{{table}}}", "  \\centering", "  \\scriptsize",
        "  \\setlength{\\tabcolsep}{2.5pt}", f"  \\caption{{{escape_latex(said)}}}",
        f"  \\label{{tab:paired-{re.sub('[^A-Za-z0-9-]', '-', part.name)}}}",
        f"  {_FITTED}\\begin{{tabular}}{{l{'r' * len(part.nfe)}}}", "    \\toprule",
        f"    Solver & {' & '.join(f'NFE {nfe}' for nfe in part.nfe)} \\\\", "    \\midrule", *body,
        "    \\bottomrule", "  \\end{tabular}}", f"\\end{{{table}}}", "",
    ]  # fmt: skip
    return {"md": "\n".join([escape_markdown(said), "", *lines, ""]), "csv": file.getvalue(), "tex": "\n".join(tex)}


def correction(comparisons: int) -> str:
    """Return what a table was corrected for, as the end of a sentence."""
    if comparisons < 2:
        return "by the only comparison of this table"
    return f"corrected for the {grouped(comparisons)} comparisons of this table (Holm, family-wise .05)"


def masked_legend(found: Iterable[Difference]) -> str:
    """Return what `MASKED` means, as a further sentence of a caption; empty if no difference of the table has it."""
    said = paired.below_error((each.reference for each in found if each.masked), f"{MASKED}: {BELOW_ERROR}")
    return f" {said}" if said else ""


def _apart(found: Difference) -> str:
    """Return a difference and its interval as Markdown; bold if it is told apart from 0."""
    if found.reason:
        return "–"
    value, low, high = found.texts
    return f"{f'**{value}**' if found.sign else value}{MASKED * found.masked} [{low}, {high}]"


def _apart_latex(label: str, each: Sequence[Difference]) -> list[str]:
    """Return a solver's differences as two lines of LaTeX: values, bold where told apart from 0, over intervals.

    Beside each other they would be wider than a page from six budgets on.
    """
    values, intervals = [escape_latex(label)], [""]
    for found in each:
        texts = found.texts
        value, low, high = (text.replace("-", "$-$").replace("+", "$+$") for text in texts)
        value += "\\S{}" * found.masked
        values.append("--" if found.reason else f"\\textbf{{{value}}}" if found.sign else value)
        intervals.append("" if found.reason else f"{{\\tiny [{low}, {high}]}}")
    return [f"    {' & '.join(values)} \\\\", f"    {' & '.join(intervals)} \\\\[1pt]"]


def caption(part: Part) -> str:
    """Return the caption: metric, teacher, n, replicates, seeds, reference, extractor and quantiser."""
    what = f"{part.label}, teacher {part.title}{f' ({part.whole})' if part.whole else ''}."
    if not part.n:
        return f"{what} {part.count.capitalize()}."
    images = f"{grouped(part.n)} images" + (f" in each of {part.replicates} replicates" if part.replicates > 1 else "")
    facts = [images + (f", biased: fewer than {grouped(part.full)}" if part.biased else "")]
    for name in ("seeds", "reference", "extractor", "quantiser"):
        if text := getattr(part, name):
            facts.append(f"{name} {text}" if name == "seeds" else f"{name}: {text}")
    return f"{what} {'; '.join(facts)}." + (f" Part {part.number}: measured unlike part 1." if part.number > 1 else "")


def legends(part: Part, escape: Callable[[str], str] = str) -> list[tuple[str, str]]:
    """Return (mark, meaning and reason) of cells without a value, grouped by solver and reason, and of marked names."""
    cells = entries(part)
    groups = dict[tuple[str, str, str], list[int]]()
    for label in part.solvers:
        for nfe in part.nfe:
            cell = cells.get((label, nfe), Entry())
            if cell.mark and cell.mark != _LACKING:
                groups.setdefault((cell.mark, label, re.sub(r"\d+", "#", cell.reason)), []).append(nfe)
    found = []
    for (mark, label, _), budgets in sorted(groups.items(), key=lambda item: list(MEANINGS).index(item[0][0])):
        reason = cells[label, budgets[0]].reason
        reason = reason if len(reason) <= _REASON else reason[: _REASON - 1] + "…"
        alike = all(cells[label, nfe].reason == cells[label, budgets[0]].reason for nfe in budgets)
        also = "" if alike else f" (and likewise at {ranges(budgets[1:])})"
        text = f"{MEANINGS[mark]}: {label} at NFE {ranges(budgets if alike else budgets[:1])}: {reason}{also}"
        found.append((mark, escape(text)))
    found += [(_LACKING, escape(text)) for text in _lacking(part, cells)]
    return found + [(mark, escape(text)) for mark, text in (*footnotes(part.frame), *_flagged(part, cells))]


def _lacking(part: Part, cells: Mapping[tuple[str, int], Entry]) -> list[str]:
    """Return the texts on finished cells without a value of this metric: each reason once, with its solvers."""
    groups = dict[str, dict[str, list[int]]]()
    for label in part.solvers:
        for nfe in part.nfe:
            if (cell := cells.get((label, nfe), Entry())).mark == _LACKING:
                groups.setdefault(cell.reason, {}).setdefault(label, []).append(nfe)
    found = []
    for reason, labels in groups.items():
        said = _cells(labels)
        alike = labels == dict.fromkeys(part.solvers, part.nfe)
        reason = reason if len(reason) <= 2 * _REASON else reason[: 2 * _REASON - 1] + "…"
        found.append(f"{MEANINGS[_LACKING]}: {'every solver' if alike and len(labels) > 1 else said}: {reason}")
    return found


def _flagged(part: Part, cells: Mapping[tuple[str, int], Entry]) -> list[tuple[str, str]]:
    """Return (mark, text) of flagged values, grouped by solver and sentence; numbers are those of the first one."""
    groups = dict[tuple[str, str], list[int]]()
    small = dict[str, dict[str, list[int]]]()  # beside the error of the reference: one sentence for all solvers
    for label in part.solvers:
        for nfe in part.nfe:
            text = cells.get((label, nfe), Entry()).flags
            if beside := _BESIDE.fullmatch(text):
                small.setdefault(beside[1], {}).setdefault(label, []).append(nfe)
            elif text:
                groups.setdefault((label, re.sub(r"[\d.e+-]+", "#", text)), []).append(nfe)
    found = [
        (FLAGGED, f"{REFERENCE_ERROR} an RMSE {what}, and so partly that error: {_cells(labels)}")
        for what, labels in small.items()
    ]
    for (label, _), budgets in groups.items():
        also = f" (and likewise at {ranges(budgets[1:])})" if len(budgets) > 1 else ""
        text = cells[label, budgets[0]].flags
        never = "" if text.startswith(REFERENCE_ERROR) else "never marked best: "
        found.append((FLAGGED, f"{never}{label} at NFE {budgets[0]}: {text}{also}"))
    return found


_BESIDE = re.compile(re.escape(REFERENCE_ERROR) + r" its RMSE \S+ is (below [^;]*)")
"""The flag of a value that is small beside the error of its reference, if it is the only one."""


def _cells(labels: Mapping[str, Sequence[int]]) -> str:
    """Return solvers with their budgets as text, such as `dpm at NFE 9, 10; unipc at NFE 10`."""
    return "; ".join(f"{label} at NFE {ranges(budgets)}" for label, budgets in labels.items())


def footnotes(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (mark, meaning) of marks after names of solvers: see `reports.bundle.METRIC_LOSS` and `INFERRED`."""
    found = []
    trained = frame[frame["metric_loss"]]
    cells = [
        f"{label} at NFE {ranges(trained[trained['label'] == label]['nfe'].to_list())}"
        for label in dict.fromkeys(trained["label"])
    ]
    if cells:
        found.append((METRIC_LOSS, f"trained on the metric's own features, so never marked best: {'; '.join(cells)}"))
    inferred = frame[frame["inferred"] != ""]
    for text in dict.fromkeys(inferred["inferred"]):
        labels = dict.fromkeys(inferred[inferred["inferred"] == text]["label"])
        found.append((INFERRED, f"{', '.join(labels)}: {text}"))
    return found


def escape_markdown(text: str) -> str:
    """Return the text with Markdown's and HTML's special characters escaped, for a table cell."""
    text = re.sub(r"([\\`*\[\]|#])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def escape_latex(text: str) -> str:
    """Return the text with LaTeX's special characters escaped; one that pdflatex lacks becomes its code point."""
    return "".join(_LATEX.get(letter, letter if ord(letter) < 0x180 else f"[U+{ord(letter):04X}]") for letter in text)


_FITTED = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n  "
"""Begins a group of LaTeX that is as wide as its content, at most as wide as a line."""
_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
    "|": "\\textbar{}", '"': "''", "±": "$\\pm$", "×": "$\\times$", "·": "$\\cdot$", "≤": "$\\le$",
    "≥": "$\\ge$", "→": "$\\to$", "−": "$-$", "–": "--", "—": "---", "…": "\\dots{}", "\u00a0": "~", "\u2009": "\\,",
    "†": "$\\dagger$", "‡": "$\\ddagger$", "§": "\\S{}",
    "σ": "$\\sigma$", "λ": "$\\lambda$", "’": "'", "‘": "`", "“": "``", "”": "''",
}  # fmt: skip


def _ranks(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float], outside: Sequence[bool]
) -> list[Rank]:
    """Return the ranks. The lowest value is best; a value whose interval overlaps that of the best is tied.

    A value that is `outside` has no rank.
    """
    known = [i for i, value in enumerate(values) if not (math.isnan(value) or outside[i])]
    if not known:
        return [""] * len(values)
    best = min(known, key=lambda i: values[i])
    return [
        "" if out else "best" if value == values[best] else "tied" if low <= highs[best] else ""
        for value, low, out in zip(values, lows, outside, strict=True)
    ]


def _margins(cells: Mapping[tuple[str, int], Entry]) -> bool:
    return any(cell.margin for cell in cells.values())


def _markdown(cell: Entry) -> str:
    if cell.mark:
        return f"`{cell.mark}`"
    sign = {"best": "**", "tied": "_", "": ""}[cell.rank]
    flag = escape_markdown(cell.flag)
    return f"{sign}{cell.value}{sign}{flag}" + (f" ± {cell.margin}" if cell.margin else "")


def _latex(cell: Entry) -> str:
    if cell.mark:
        return _SIGNS.get(cell.mark, cell.mark)
    command = {"best": "\\textbf{%s}", "tied": "\\underline{%s}", "": "%s"}[cell.rank]
    margin = cell.margin.removeprefix("0") if "." in cell.margin else cell.margin
    return command % cell.value + cell.flag + (f"{{\\scriptsize$\\,\\pm${margin}}}" if cell.margin else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
