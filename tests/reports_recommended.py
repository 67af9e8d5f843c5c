"""The folder of a recommendation beside the bundle of its run, as `solverbench recommend` writes both."""

import json
from pathlib import Path
from typing import Any

from reports_large import HOSTILE, write

SOLVERS = ("dpm", "unipc", "euler", "heun")
SCRIPT = 'print("use it" if 1 < 2 else "</pre><script>alert(1)</script>")\n'


def recommended(out: Path, budgets: tuple[int, ...] = (4, 6), *, below: bool = False, **changes: Any) -> Path:
    """Write OUT/reports/run and OUT/recommendations/name; return the latter.

    Args:
        below: whether a difference of each pick is below the error of the reference.
    """
    write(out / "reports" / "run", SOLVERS, ["digits"], budgets, ("rmse_teacher",))
    folder = out / "recommendations" / "name"
    comparisons = [
        comparison("second", "unipc", -0.001, "level"),
        comparison("third, plain default", "euler", -0.2, "ahead"),
        comparison("the pipeline's own scheduler", "heun", 0.1, "behind"),
    ]
    if below:
        error = "the reference's error is 0.2"
        comparisons.append(comparison("third", "deis", 0.15, "below the reference's error", error))
    picks = [
        {"nfe": nfe, "spec": "dpm", "value": 0.1 / nfe, "low": 0.09 / nfe, "high": 0.11 / nfe,
         "front": nfe == budgets[0], "itself": "", "comparisons": comparisons}
        for nfe in budgets
    ]  # fmt: skip
    rows = [row(nfe, spec, k) for nfe in budgets for k, spec in enumerate((*SOLVERS, HOSTILE[0]))]
    rows.append({"nfe": 4, "spec": "heunpp2", "images": 0, "rmse": None, "state": "not possible: <three> a step",
                 "same_as": ""})  # fmt: skip
    given = {
        "teacher": "digits", "by": "rmse_teacher", "pick": picks[-1], "picks": picks, "candidates": rows,
        "cost": {"calls": 32520, "search_calls": 0, "seconds": 18.2, "images": 64, "seconds_per_call": 5.5e-4},
        "notes": ["look at the images", HOSTILE[0]], "folder": "elsewhere/recommendations/name",
        "report": "elsewhere/reports/run",
    }  # fmt: skip
    for nfe in budgets:
        (folder / f"nfe{nfe}").mkdir(parents=True)
        (folder / f"nfe{nfe}" / "use.py").write_text(SCRIPT)
        (folder / f"nfe{nfe}" / "solver.py").write_text("")
    (folder / "recommendation.json").write_text(json.dumps(given | changes))
    return folder


def comparison(role: str, spec: str, difference: float, verdict: str, note: str = "") -> dict[str, Any]:
    return {"role": role, "spec": spec, "difference": difference, "low": difference - 0.01, "high": difference + 0.01,
            "verdict": verdict, "note": note}  # fmt: skip


def row(nfe: int, spec: str, k: int) -> dict[str, Any]:
    return {"nfe": nfe, "spec": spec, "images": 8 << k, "rmse": 0.1 * (k + 1), "state": "beaten after 8 images",
            "same_as": ""}  # fmt: skip
