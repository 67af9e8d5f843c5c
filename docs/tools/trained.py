"""Write the tables of trained solvers in docs/digits.md and docs/learned.md.

    python docs/tools/trained.py                    # from the stored numbers
    python docs/tools/trained.py digits=runs/reports/NAME learned=runs/reports/OTHER    # store those numbers first

The pages say which commands make the reports. `registries/zoo/digits/runs.csv` has the validation error of
every training.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from sections import begin, read, replaced

ROOT = Path(__file__).parents[2]
NUMBERS = ROOT / "docs" / "tools" / "trained.csv"
RUNS = ROOT / "registries" / "zoo" / "digits" / "runs.csv"
PAGES = (ROOT / "docs" / "digits.md", ROOT / "docs" / "learned.md")
FIELDS = ("run", "solver", "nfe", "metric", "value", "low", "high", "cell")
COMMANDS = {
    "digits": "solverbench run --solvers 'gas:training=0|1|2,gs:training=0|1|2,dpm,euler' --nfe 3-10",
    "learned": "solverbench run --solvers 'gas:training=0|1|2,gs:training=0|1|2,bns:training=0|1|2,"
    "s4s_alt:training=0|1|2,ld3:mode=time:training=0|1|2,ld3:training=0|1|2,dyweight:training=0|1|2,"
    "epd:training=0|1|2,free,ge:grid=gits|oss,pfdiff:grid=arctan|oss,deis' --nfe 4,6,8 --samples 1000",
}
METRICS = ("frechet_data", "frechet_teacher", "rmse_teacher")
ALL = ":training=0|1|2"
DIGITS = (f"gas{ALL}", f"gs{ALL}", "dpm", "euler")
METHODS = ("gas", "gs", "bns", "s4s_alt", "ld3:mode=time", "ld3", "dyweight", "epd")
LEARNED = ("free", *(name + ALL for name in METHODS))
CLASSICAL = ("ge:grid=oss", "ge:grid=gits", "pfdiff:grid=arctan", "pfdiff:grid=oss", "deis")
SHIPPED = ("gs", "gas", "ld3:mode=time", "ld3", "s4s_alt", "s4s")
BUDGETS = range(1, 11)

Row = dict[str, str]
Values = dict[tuple[str, str, str, int], Row]


def store(reports: dict[str, Path]) -> None:
    """Take the rows of these runs' results.csv, rounded to five digits; other runs' rows stay."""
    rows = [row for row in read(NUMBERS) if row["run"] not in reports] if NUMBERS.exists() else []
    for run, report in reports.items():
        for row in read(report / "results.csv"):
            if row["metric"] in METRICS and row["value"]:
                numbers = {key: f"{float(row[key]):.5g}" for key in ("value", "low", "high")}
                rows.append(row | numbers | {"run": run})
    with NUMBERS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def stored() -> Values:
    return {(row["run"], row["metric"], row["solver"].replace("‡", ""), int(row["nfe"])): row for row in read(NUMBERS)}


def trainings() -> dict[tuple[str, int], list[Row]]:
    """Return what `runs.csv` has of each solver and number of calls, a row for each training."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in read(RUNS):
        found.setdefault((row["solver"], int(row["nfe"])), []).append(row)
    return found


def measured(values: Values, run: str, metric: str, solvers: Sequence[str], budgets: Sequence[int]) -> str:
    """Return a table of solvers against calls: value with half the width of its interval, a column's lowest bold."""
    lines = [f"| | {' | '.join(f'{nfe} calls' if nfe == budgets[0] else str(nfe) for nfe in budgets)} |"]
    lines.append("|---" * (len(budgets) + 1) + "|")
    for solver in solvers:
        cells = []
        for nfe in budgets:
            rivals = [
                values.get((run, metric, other, nfe)) for other in solvers if other != "free"
            ]  # a bound, no method
            best = min((float(row["value"]) for row in rivals if row), default=0)
            cells.append(_shown(values.get((run, metric, solver, nfe)), best))
        lines.append(f"| `{solver.removesuffix(ALL)}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def classical(values: Values, run: str, metric: str, budgets: Sequence[int]) -> str:
    """Return the last line of such a table: the best of `CLASSICAL` at each number of calls, by name."""
    cells = []
    for nfe in budgets:
        tried = {name: values.get((run, metric, name, nfe)) for name in CLASSICAL}
        value, name = min((float(row["value"]), name) for name, row in tried.items() if row)
        cells.append(f"{_short(value)}, `{name}`")
    return f"| best classical, on its best grid | {' | '.join(cells)} |"


def validations(solvers: Sequence[str]) -> str:
    """Return the table of validation errors: the trainings' mean and range."""
    known = trainings()
    lines = [f"| calls | {' | '.join(f'`{solver}`' for solver in solvers)} |", "|---" * (len(solvers) + 1) + "|"]
    for nfe in BUDGETS:
        cells: list[str] = []
        for solver in solvers:
            rows = known.get((solver, nfe), [])
            errors = [float(row["validation"]) for row in rows]
            cells.append(_range(errors) if rows else "–")
        lines.append(f"| {nfe} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(errors: list[float]) -> str:
    if len(errors) == 1:
        return f"{_short(errors[0])}, one"
    return f"{_short(mean(errors))} ({_short(min(errors))}–{_short(max(errors))})"


def _shown(row: Row | None, best: float) -> str:
    if row is None:
        return "–"
    value, half = float(row["value"]), (float(row["high"]) - float(row["low"])) / 2
    text = f"{_short(value)} ± {_short(half, like=value)}"
    return f"**{text}**" if _short(value) == _short(best) else text


def _short(value: float, like: float | None = None) -> str:
    size = value if like is None else like
    digits = 4 if size < 0.3 else 3 if size < 1 else 2 if size < 10 else 1
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if value < 1 else text


def page(text: str) -> str:
    values, wide, usual = stored(), range(3, 11), (4, 6, 8)
    for metric in METRICS:
        text = replaced(
            text, begin("trained.py", f"{metric} on digits"), measured(values, "digits", metric, DIGITS, wide)
        )
        together = [measured(values, "learned", metric, LEARNED, usual), classical(values, "learned", metric, usual)]
        text = replaced(text, begin("trained.py", f"{metric} of learned solvers"), "\n".join(together))
    text = replaced(text, begin("trained.py", "trainings of gs and gas"), validations(("gs", "gas")))
    return replaced(text, begin("trained.py", "trainings"), validations(SHIPPED))


def main() -> None:
    if len(sys.argv) > 1:
        store({run: Path(report) for run, _, report in (word.partition("=") for word in sys.argv[1:])})
    for each in PAGES:
        each.write_text(page(each.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
