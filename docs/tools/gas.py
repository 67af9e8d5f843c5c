"""Write the tables of docs/gas.md.

    python docs/tools/gas.py            # from the stored numbers
    python docs/tools/gas.py FOLDER     # take those of an ablation first: FOLDER is its --out

The page says which command makes the folder.
"""

import csv
import re
import shutil
import sys
from pathlib import Path
from statistics import mean, stdev

from sections import begin, read, replaced

from solverbench.metrics.plugin import described
from solverbench.reports.paired import LEVEL
from solverbench.wording import bracketed, decimals, number_text

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gas.md"
NUMBERS = ROOT / "docs" / "tools" / "gas.csv"
TRAININGS = ROOT / "benchmarks" / "ablation-shapes" / "trainings.csv"
IMAGES = ROOT / "docs" / "images"
METRICS = (
    "frechet_data", "frechet_teacher", "rmse_teacher", "kernel_data", "precision_data", "recall_data",
    "residual_teacher", "detail_teacher",
)  # fmt: skip
"""Metrics in the order of the tables."""
SHORT = ("frechet_data", "frechet_teacher", "rmse_teacher", "detail_teacher", "residual_teacher")
"""Metrics of the table of all rows."""

Row = dict[str, str]


def store(folder: Path) -> None:
    """Take an ablation's table, with numbers of five digits, and its strips of images."""
    rows = [{key: _rounded(value) for key, value in row.items()} for row in read(folder / "table.csv")]
    with NUMBERS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for strip in folder.glob("strip-nfe*.png"):
        shutil.copy(strip, IMAGES / f"gas-{strip.name}")


def _rounded(text: str) -> str:
    """Return numbers with a point, and those joined by |, with five digits; other text as it is."""
    number = r"-?\d+\.\d+(e-?\d+)?"
    parts = text.split("|")
    return "|".join(f"{float(part):.5g}" if re.fullmatch(number, part) else part for part in parts)


def measured(nfe: int) -> dict[tuple[str, str], Row]:
    """Return the lines of one number of calls, by row and metric."""
    return {(row["row"], row["metric"]): row for row in read(NUMBERS) if int(row["nfe"]) == nfe}


def against(nfe: int) -> str:
    """Return the table of GAS against GS."""
    found = measured(nfe)
    lines = ["| | GS | GAS | GAS - GS, 95 % interval | p, corrected | |", "|---|---|---|---|---|---|"]
    for metric in METRICS:
        gs, gas = found["gs", metric], found["gas", metric]
        p = float(gas["p_holm"])
        shown = _bare(f"{p:.{2 if p > 0.1 else 3}f}")
        cells = [_name(metric), _value(gs), _value(gas), _difference(gas), shown, verdict(metric, gs, gas)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(metric: str, gs: Row, gas: Row) -> str:
    """Return whether GAS is ahead: held, not held (behind), or unresolved. Power of detail is best at 0 dB."""
    if float(gas["p_holm"]) > LEVEL:
        return "unresolved"
    values = [float(row["value"]) for row in (gs, gas)]
    if metric == "detail_teacher":
        values = [abs(value) for value in values]
    ahead = values[1] > values[0] if described(metric).higher else values[1] < values[0]
    return "**held**" if ahead else "**not held**"


def each(nfe: int) -> str:
    """Return the table of every training's own values."""
    found = measured(nfe)
    lines = ["| | GS | GAS |", "|---|---|---|"]
    for metric in METRICS:
        cells = [_each(found[row, metric]) for row in ("gs", "gas")]
        lines.append(f"| {_name(metric)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows(nfe: int) -> str:
    """Return the table of all rows, with both trainings' values where there are two."""
    found = measured(nfe)
    names = list(dict.fromkeys(row for row, _ in found))
    lines = [f"| | trainings | {' | '.join(map(_name, SHORT))} |", "|---" * (len(SHORT) + 2) + "|"]
    for name in names:
        cells = []
        for metric in SHORT:
            row = found.get((name, metric))
            own = f" ({_each(row)})" if row and row["trainings"] == "2" else ""
            cells.append(_value(row) + own if row else "–")
        count = next(row["trainings"] for (other, _), row in found.items() if other == name)
        lines.append(f"| `{name}` | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(nfe: int) -> str:
    """Return the table of what trainings cost, and of their validation errors."""
    groups: dict[str, list[Row]] = {}
    for row in read(TRAININGS):
        if int(row["nfe"]) == nfe:
            groups.setdefault(row["row"], []).append(row)
    lines = ["| | trainings | iterations | network calls | seconds of a core | validation RMSE |", "|---" * 6 + "|"]
    for name, group in groups.items():
        errors = [float(row["validation"]) for row in group]
        spans = [float(row["cpu_seconds"]) for row in group if row["cpu_seconds"]]
        made = f"{int(group[0]['student_calls']):,}".replace(",", " ")
        cells = [f"`{name}`", str(len(group)), group[0]["iterations"], made]
        cells.append(f"{mean(spans):.0f}" if spans else "–")
        spread = f" ({min(errors):.4f}–{max(errors):.4f})" if len(errors) > 1 else ""
        cells.append(_bare(f"{mean(errors):.4f}{spread}"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _name(metric: str) -> str:
    told = described(metric)
    return f"{told.short}, dB" if told.space.startswith("dB") else told.short


def _value(row: Row) -> str:
    """Return a value with half the width of its interval."""
    value, half = float(row["value"]), (float(row["high"]) - float(row["low"])) / 2
    places = decimals(value, half / 2)
    return _bare(f"{number_text(value, places)} ± {number_text(half, places)}")


def _difference(row: Row) -> str:
    """Return a paired difference with its interval."""
    return _bare(bracketed(*(float(row[name]) for name in ("difference", "difference_low", "difference_high"))))


def _each(row: Row) -> str:
    """Return the values of a row's trainings, in the order of their seeds, with the decimals of their deviation."""
    values = [float(part) for part in row["each"].split("|")]
    places = decimals(values[0], stdev(values))
    return _bare(", ".join(number_text(value, places) for value in values))


def _bare(text: str) -> str:
    """Return text whose numbers below 1 begin with the point."""
    return re.sub(r"(?<![\d.])0\.", ".", text)


def page(text: str) -> str:
    """Return the page with its tables made again."""
    for nfe in sorted({int(row["nfe"]) for row in read(NUMBERS)}):
        for name, made in (("against", against), ("each", each), ("rows", rows), ("costs", costs)):
            text = replaced(text, begin("gas.py", f"{name} with {nfe} calls"), made(nfe))
    return text


def main() -> None:
    if len(sys.argv) > 1:
        store(Path(sys.argv[1]))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
