"""Write the tables of docs/which.md from the numbers in docs/tools/which.csv.

    python docs/tools/which.py                             # from the stored numbers
    python docs/tools/which.py runs/reports/NAME [...]     # store the numbers of these reports first

docs/which.md says which commands make the reports.
"""

import csv
import sys
from pathlib import Path

from sections import begin, replaced

ROOT = Path(__file__).parents[2]
NUMBERS = ROOT / "docs" / "tools" / "which.csv"
PAGE = ROOT / "docs" / "which.md"
METRIC = "rmse_teacher"
FIELDS = ("teacher", "solver", "nfe", "value", "low", "high", "n")
SHOWN = {"digits": (3, 4, 5, 6, 8, 10), "mixture": (3, 4, 5, 6, 8, 10), "shapes": (4, 6, 8)}
BASES = ("unipc", "dpm", "ipndm", "deis")
GRIDS = ("", "time_quadratic", "arctan", "dmn", "gits", "gits:discount=1.0", "oss")
FORMULAS = (
    *("euler", "dpm:order=2:variant=taylor", "adams", "adams:corrector=4", "exprk", "ge", "cab", "cab:order=3"),
    *("pfdiff", "pfdiff:k=1:h=1", "pfdiff:k=3:h=2", "ipndm_v"),
)

Row = dict[str, str]
Values = dict[tuple[str, str, int], Row]


def store(reports: list[Path]) -> None:
    """Take the rows of these reports' results.csv, rounded to five digits; a later report replaces an earlier one."""
    found: dict[tuple[str, ...], Row] = {}
    for report in reports:
        with (report / "results.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["metric"] == METRIC and row["value"] and int(row["nfe"]) in SHOWN[row["teacher"]]:
                    numbers = {key: f"{float(row[key]):.4g}" for key in ("value", "low", "high")}
                    found[row["teacher"], row["solver"], row["nfe"]] = row | numbers
    with NUMBERS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found.values())


def stored() -> Values:
    with NUMBERS.open(encoding="utf-8", newline="") as file:
        return {(row["teacher"], row["solver"], int(row["nfe"])): row for row in csv.DictReader(file)}


def spec(base: str, grid: str) -> str:
    return f"{base}:grid={grid}" if grid else base


def grids(values: Values, teacher: str) -> str:
    """Return the table of `BASES` on each grid: RMSE with half the width of its interval, best of a solver bold."""
    budgets = SHOWN[teacher]
    lines = [f"| {teacher} | {' | '.join(map(str, budgets))} |", "|---" * (len(budgets) + 1) + "|"]
    for base in BASES:
        rows = {grid: [values.get((teacher, spec(base, grid), nfe)) for nfe in budgets] for grid in GRIDS}
        rows = {grid: row for grid, row in rows.items() if any(row)}
        for grid, row in rows.items():
            cells = []
            for k, each in enumerate(row):
                known = [float(other[k]["value"]) for other in rows.values() if other[k]]
                cells.append(_shown(each, known))
            lines.append(f"| `{spec(base, grid)}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def formulas(values: Values, teacher: str) -> str:
    """Return the table of each formula on its default grid and on the best of the others, with that grid's name."""
    budgets = (4, 6, 8, 10) if teacher != "shapes" else (4, 6, 8)
    lines = [f"| {teacher} | {' | '.join(map(str, budgets))} |", "|---" * (len(budgets) + 1) + "|"]
    for base in (*BASES, *FORMULAS):
        cells: list[str] = []
        for nfe in budgets:
            own = values.get((teacher, base, nfe))
            tried = {grid: values.get((teacher, spec(base, grid), nfe)) for grid in GRIDS if grid}
            known = {grid: float(row["value"]) for grid, row in tried.items() if row}
            if own is None or not known:
                cells.append("–")
                continue
            best = min(known, key=lambda grid: known[grid])
            cells.append(f"{_short(float(own['value']))} → {_short(known[best])} {best}")
        if set(cells) != {"–"}:
            lines.append(f"| `{base}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(row: Row | None, known: list[float]) -> str:
    if row is None:
        return "–"
    value, half = float(row["value"]), (float(row["high"]) - float(row["low"])) / 2
    text = f"{_short(value)} ± {_short(half)}"
    return f"**{text}**" if value == min(known) else text


def _short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0") if value < 1 else f"{value:.2f}"


def page(text: str) -> str:
    values = stored()
    for teacher in SHOWN:
        text = replaced(text, begin("which.py", f"grids on {teacher}"), grids(values, teacher))
        text = replaced(text, begin("which.py", f"formulas on {teacher}"), formulas(values, teacher))
    return text


def main() -> None:
    if len(sys.argv) > 1:
        store([Path(each) for each in sys.argv[1:]])
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
