"""Draw the README's figure and write its table, from the numbers in docs/tools/readme.csv.

    python docs/tools/readme.py                      # from the stored numbers
    python docs/tools/readme.py runs/reports/NAME    # store the numbers of that report first

The command that makes such a report is `COMMAND`. Each stored row names its cell's address, so that a test can tell
whether the numbers belong to the solvers as they are now.
"""

import csv
import hashlib
import io
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from PIL import Image, PngImagePlugin
from sections import begin, read, replaced

ROOT = Path(__file__).parents[2]
NUMBERS = ROOT / "docs" / "tools" / "readme.csv"
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "images"
COMMAND = "solverbench run --solvers euler,dpm,unipc,ipndm,deis,gas --nfe 3-10"
FIELDS = ("solver", "nfe", "metric", "value", "low", "high", "cell")
METRICS = {
    "frechet_teacher": "Fréchet distance to the teacher's samples",
    "rmse_teacher": "RMSE to the teacher's sample from the same noise",
}
FLOOR = 0.219
"""The Fréchet distance between sets of the teacher's own samples of this size (docs/digits.md)."""
NAMES = {
    "euler": "Euler (DDIM)",
    "dpm": "DPM-Solver++",
    "unipc": "UniPC",
    "ipndm": "iPNDM",
    "deis": "DEIS",
    "gas": "GAS",
}
SHOWN = (4, 6, 8, 10)
"""Calls in the table."""
SOURCE = "Source"
"""Key of the text in each picture that holds the sha256 of the numbers it was drawn from."""

LOOKS = {
    "light": {"ground": "#ffffff", "ink": "#1f2328", "grid": "#d1d9e0",
              "colours": ("#6e7781", "#0173b2", "#02805d", "#b0509e", "#3d8fc4", "#c44e00")},
    "dark": {"ground": "#0d1117", "ink": "#e6edf3", "grid": "#30363d",
             "colours": ("#9ea7b1", "#58a6ff", "#3fc99a", "#e08fd0", "#8ad1ff", "#ff9248")},
}  # fmt: skip
MARKERS = dict(zip(NAMES, "osDXP*", strict=True))

Row = dict[str, str]


def stored() -> list[Row]:
    return read(NUMBERS)


def store(report: Path) -> None:
    """Take the rows of a report's results.csv, rounded to six digits."""
    with (report / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] in METRICS and row["solver"] in NAMES]
    with NUMBERS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {key: f"{float(row[key]):.6g}" for key in ("value", "low", "high")} for row in rows)


def digest() -> str:
    return hashlib.sha256(NUMBERS.read_bytes()).hexdigest()


def figure(look: str, rows: list[Row]) -> None:
    """Draw both distances against the number of calls; bands are 95 % intervals."""
    ground, ink, grid = (str(LOOKS[look][key]) for key in ("ground", "ink", "grid"))
    colours = dict(zip(NAMES, LOOKS[look]["colours"], strict=True))
    style = {"font.size": 8.5, "font.family": "DejaVu Sans", "text.color": ink, "axes.labelcolor": ink,
             "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": grid, "axes.linewidth": 0.8}  # fmt: skip
    with matplotlib.rc_context(style):
        drawn, panels = plt.subplots(1, 2, figsize=(8.6, 3.5), facecolor=ground)
        for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
            axes.set_facecolor(ground)
            ends = {}
            for solver in NAMES:
                points = [row for row in rows if (row["solver"], row["metric"]) == (solver, metric)]
                calls = [int(row["nfe"]) for row in points]
                value, low, high = ([float(row[key]) for row in points] for key in ("value", "low", "high"))
                axes.fill_between(calls, low, high, color=colours[solver], alpha=0.25, linewidth=0)
                axes.plot(calls, value, marker=MARKERS[solver], markersize=7 if solver == "gas" else 4.5,
                          color=colours[solver], linewidth=1.5)  # fmt: skip
                ends[solver] = value[-1]
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(2.8, 10.1)
            axes.set_xticks(range(3, 11))
            axes.set_xlabel("network calls (NFE)")
            axes.set_title(title, fontsize=9, loc="left", weight="bold", color=ink)
            axes.grid(axis="y", color=grid, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            if metric == "frechet_teacher":
                axes.axhline(FLOOR, color=ink, linewidth=0.8, linestyle=(0, (4, 3)))
                axes.text(2.95, 0.15, "the teacher against itself", fontsize=7.5, va="center")
                axes.set_ylim(0.12, 230)
            ticks = (0.2, 1, 10, 100) if metric == "frechet_teacher" else (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
            axes.yaxis.set_major_locator(FixedLocator(ticks))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            _label(axes, ends, colours)
        drawn.tight_layout(pad=0.6, w_pad=2.5)
        buffer = io.BytesIO()
        drawn.savefig(buffer, dpi=150, facecolor=ground)
        plt.close(drawn)
    text = PngImagePlugin.PngInfo()
    text.add_text(SOURCE, digest())
    small = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(PICTURES / f"readme-{look}.png", optimize=True, pnginfo=text)


def _label(axes: Axes, ends: dict[str, float], colours: dict[str, str]) -> None:
    """Name each line at its right end, the names at least a line's height apart."""
    apart = 0.062  # of the axis' height
    places: dict[str, float] = {}
    for solver in sorted(ends, key=lambda name: ends[name]):
        _, height = axes.transAxes.inverted().transform(axes.transData.transform((10, ends[solver])))
        places[solver] = max([height, *(place + apart for place in places.values())])
    for solver, height in places.items():
        axes.text(1.015, height, NAMES[solver], color=colours[solver], transform=axes.transAxes, va="center",
                  weight="bold", fontsize=8)  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return the README's table: a row for each solver, both distances at the calls of `SHOWN`."""
    values = {(row["metric"], row["solver"], int(row["nfe"])): row for row in rows}
    short = {"frechet_teacher": "Fréchet", "rmse_teacher": "RMSE"}
    heads = [f"{name}, NFE {nfe}" if nfe == SHOWN[0] else str(nfe) for name in short.values() for nfe in SHOWN]
    lines = ["| solver | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for solver in NAMES:
        cells = [_value(values[metric, solver, nfe], metric) for metric in short for nfe in SHOWN]
        lines.append(f"| `{solver}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _value(row: Row, metric: str) -> str:
    value, half = float(row["value"]), (float(row["high"]) - float(row["low"])) / 2
    if metric == "rmse_teacher":
        return f"{value:.3f}"
    digits = 2 if value < 10 else 1
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def section(text: str, rows: list[Row]) -> str:
    """Return the README with its table replaced."""
    return replaced(text, begin("readme.py"), table(rows))


def main() -> None:
    if len(sys.argv) > 1:
        store(Path(sys.argv[1]))
    rows = stored()
    for look in LOOKS:
        figure(look, rows)
    README.write_text(section(README.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
