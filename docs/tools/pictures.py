"""Draw the pictures of docs/idea.md from solverbench's own numbers: `python docs/tools/pictures.py docs/images`."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import solverbench as sb

SOLVERS = ("euler", "dpm", "unipc", "ipndm", "heun:end=zero", "gas")
NFE = 5
COLOURS = dict(zip(SOLVERS, ("#949494", "#0173b2", "#029e73", "#cc78bc", "#ca9161", "#d55e00"), strict=True))
SHARING = [f"{name}:grid=polynomial" for name in ("euler", "dpm:order=2", "dpm:order=3", "unipc", "ipndm")]
LOOK = {"font.size": 7, "font.family": "DejaVu Sans", "svg.hashsalt": "solverbench", "axes.linewidth": 0.6}


def matrices(tableaus: dict[str, sb.Tableau]) -> None:
    """A heat map for each solver: row k makes the input of call k, the last row the sample."""
    figure, panels = plt.subplots(2, 3, figsize=(7.2, 5.1))
    for axes, (spec, tableau) in zip(panels.flat, tableaus.items(), strict=True):
        weights = tableau.weights.detach().clone()
        weights[:, 0] /= weights[0, 0]
        shown = weights.masked_fill(torch.ones_like(weights).triu(1) > 0, float("nan"))
        axes.imshow(shown, cmap="RdBu_r", vmin=-2, vmax=2)
        for k, row in enumerate(weights.tolist()):
            for j, weight in enumerate(row[: k + 1]):
                ink = "white" if abs(weight) > 1.2 else "#222222"
                axes.text(j, k, _short(weight), ha="center", va="center", fontsize=6.5, color=ink)
        axes.set_title(spec, fontsize=8, color=COLOURS[spec], weight="bold")
        axes.set_xticks(range(NFE + 1), ["x", *(f"d{j}" for j in range(NFE))])
        axes.set_yticks(range(NFE + 1), [*(f"input {k}" for k in range(NFE)), "sample"])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.tight_layout(pad=0.4)


def levels(tableaus: dict[str, sb.Tableau]) -> None:
    """The noise level told to the network at each call, a line for each solver."""
    figure, axes = plt.subplots(figsize=(7.2, 2.0))
    for row, (spec, tableau) in enumerate(tableaus.items()):
        sigmas = tableau.sigmas.tolist()
        axes.plot(sigmas, [row] * len(sigmas), "-o", color=COLOURS[spec], markersize=5, linewidth=0.8)
        seen: dict[float, int] = {}
        for k, sigma in enumerate(sigmas):
            beside = seen.get(sigma, 0)
            axes.annotate(str(k), (sigma, row), (5 * beside, 4), textcoords="offset points", fontsize=6, ha="center")
            seen[sigma] = beside + 1
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_yticks(range(len(tableaus)), list(tableaus))
    axes.set_ylim(len(tableaus) - 0.5, -0.6)
    axes.set_xlabel("noise level sigma of calls 0 to 4 (digits: from 80 to 0.002)")
    axes.grid(axis="x", linewidth=0.3)
    figure.tight_layout(pad=0.8)


def tree(specs: list[str], teacher: sb.Teacher, nfe: int = 4) -> None:
    """The calls of some solvers as a prefix tree: a dot is a call, made once for all lines that go through it."""
    figure, axes = plt.subplots(figsize=(7.2, 2.0))
    plans = [sb.tableau(spec, nfe=nfe, teacher=teacher).plan_from_noise(teacher.schedule) for spec in specs]
    spots: dict[object, tuple[int, float]] = {}
    ends: dict[str, tuple[float, list[str]]] = {}
    for line, (spec, plan) in enumerate(zip(specs, plans, strict=True)):
        path = [spots.setdefault((plan.rows[: k + 1], plan.sigmas[: k + 1]), (k, line)) for k in range(nfe)]
        down, names = ends.setdefault(plan.key, (line, []))
        names.append(spec.removesuffix(":grid=polynomial"))
        across, downs = zip(*path, (nfe, down), strict=True)
        axes.plot(across, downs, "-", color="#0173b2", linewidth=1.4, zorder=2)
    for down, names in ends.values():
        axes.text(nfe + 0.08, down, " = ".join(names), va="center")
    axes.scatter(*zip(*spots.values(), strict=True), s=42, color="#222222", zorder=3)
    asked = nfe * len(specs)
    axes.set_title(f"{asked} calls asked, {len(spots)} made", fontsize=8, loc="left")
    axes.set_xticks(range(nfe + 1), [*(f"call {k}" for k in range(nfe)), "sample"])
    axes.set_yticks([])
    axes.set_xlim(-0.2, nfe + 1.3)
    axes.set_ylim(len(specs) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    figure.tight_layout(pad=0.4)


def _short(weight: float) -> str:
    text = f"{weight:.2f}" if abs(weight) < 10 else f"{weight:.0f}"
    return {"-0.00": ".00"}.get(text, text.replace("0.", ".") if abs(weight) < 1 else text)


def main(folder: Path) -> None:
    teacher = sb.load_teacher("digits")
    tableaus = {spec: sb.tableau(spec, nfe=NFE, teacher=teacher) for spec in SOLVERS}
    with matplotlib.rc_context(LOOK):
        for name, draw in (
            ("idea-matrices", lambda: matrices(tableaus)),
            ("idea-levels", lambda: levels(tableaus)),
            ("idea-tree", lambda: tree(SHARING, teacher)),
        ):
            draw()
            plt.savefig(folder / f"{name}.png", dpi=170)
            plt.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
