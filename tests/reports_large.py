"""A bundle as large as they get, 12 solvers x 8 budgets x 5 teachers x 4 metrics, and names that try to do harm."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

METRICS = {
    "frechet_data": {"label": "Fréchet distance to the data (features)", "short": "Fréchet to data", "log": True},
    "frechet_teacher": {"label": "Fréchet distance to the teacher's own samples (features)", "log": True},
    "rmse_teacher": {"label": "RMSE to the teacher's own sample (pixels in [-1, 1])", "short": "RMSE", "log": True},
    "precision": {"label": "Precision (features)", "short": "precision", "log": False, "higher": True},
}
SOLVERS = ("euler", "heun", "dpm2", "dpm", "unipc", "deis", "ipndm", "ipndm_v", "ld3", "s4s", "gs", "gas")
LEARNED = ("ld3", "s4s", "gs", "gas", "free")
TEACHERS = ("digits", "mixture", "shapes", "cifar10-edm", "latent-bedroom")
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "50%_of{all}$x^2$ & #1 \\input{/etc/passwd} ~",
    "it's `code` | **bold** <b>",
    "=cmd|' /C calc'!A0",
)
"""No `:` or `,`, which end a name in a spec."""


def write(
    folder: Path, solvers: Sequence[str] = SOLVERS, teachers: Sequence[str] = TEACHERS,
    budgets: Sequence[int] = tuple(range(3, 11)), metrics: Sequence[str] = tuple(METRICS), *, side: int = 16,
    replicates: int = 3, values: dict[int, float] | None = None, failed: bool = False,
) -> Path:  # fmt: skip
    """Write a bundle and return its folder.

    Args:
        side: of the images, three channels.
        values: what takes the place of the value of the i-th row.
        failed: every cell failed.
    """
    folder.mkdir(parents=True)
    dice = np.random.default_rng(7)
    rows, cells, images = [], {}, {}
    for t, teacher in enumerate(teachers):
        base = dice.integers(0, 256, (8, 3, side, side))
        images[f"{teacher}|teacher|64"] = base.astype(np.uint8)
        for s, solver in enumerate(solvers):
            for nfe in budgets:
                key = f"{t:04x}{s:04x}{nfe:08x}"
                missing = solver == "heun" and nfe % 2 == 1
                plan = {"sigmas": [80.0 * 0.3 ** (k + 0.05 * s) for k in range(nfe)],
                        "rows": [[80.0 * 0.3**k, *[(-0.6) ** (k - j) for j in range(k)], *[0.0] * (nfe - k)]
                                 for k in range(nfe + 1)]}  # fmt: skip
                measures = {}
                for m, metric in enumerate(metrics):
                    i = len(rows)
                    value = float((1.4**-s if m < 3 else 0.02 * s) * 30 / nfe ** (1 + 0.1 * t) / 10 ** max(0, m - 1))
                    value = (values or {}).get(i, min(value, 0.99) if m == 3 else value)
                    left = value * (1 + 0.004 * dice.standard_normal((replicates, 10)))
                    error = abs(value) * 0.01
                    measures[metric] = {"over": f"{teacher} {metric}", "replicates": [value] * replicates,
                                        "leave_one_out": left.tolist()}  # fmt: skip
                    status = "failed" if failed else "unsupported" if missing else "done"
                    reason = "FloatingPointError: NaN in call 2" if failed else "use an even number" if missing else ""
                    gone = failed or missing
                    rows.append({
                        "teacher": teacher, "solver": solver, "spec": f"{solver}:grid=logsnr:order=3", "nfe": nfe,
                        "metric": metric, "value": None if gone else value, "low": None if gone else value - 2 * error,
                        "high": None if gone else value + 2 * error, "std_error": None if gone else error,
                        "n": 10000, "replicates": replicates, "seeds": "50000-79999", "reference": f"{teacher} data",
                        "extractor": "features 0123", "quantiser": "edm-round", "status": status, "reason": reason,
                        "cell": key, "net_passes": nfe, "learned": solver in LEARNED, "metric_loss": False,
                        "inferred": "", "cost_seconds": 3.0, "cost_images_per_second": 9000.0 / nfe + 50 * s,
                        "cost_training_seeds": 3 if solver in LEARNED else None,
                        "cost_training_student_calls": 1e6 * nfe * (s + 1) if solver in LEARNED else None,
                        "cost_training_teacher_calls": 2e6 if solver in LEARNED else None,
                        "cost_training_seconds": 100.0 * nfe if solver in LEARNED else None,
                        "cost_training_peak_memory_bytes": 4e8 if solver in LEARNED else None,
                        "validation": 0.1 / nfe if solver in LEARNED else None,
                        "validation_spread": 0.01 / nfe if solver in LEARNED else None,
                    })  # fmt: skip
                if not (failed or missing):
                    cells[key] = {"plan": plan, "measures": measures}
                    noise = dice.integers(-60, 60, base.shape) * 3 / nfe
                    images[f"{teacher}|{solver}|{nfe}"] = np.clip(base + noise, 0, 255).astype(np.uint8)
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    record: dict[str, Any] = {
        "schema": 1, "command": "solverbench run --solvers " + ",".join(solvers),
        "selection": {"solvers": list(solvers), "nfe": list(budgets), "teachers": list(teachers)},
        "protocol": {"seeds": "50000-79999", "interval": "95 %, jackknife"}, "environment": {"python": "3.11"},
        "metrics": {metric: METRICS[metric] for metric in metrics}, "notes": [], "tags": [],
        "lines": [{"teacher": teacher, "metric": metrics[0], "label": "teacher, dpm 64 calls", "value": 0.5,
                   "low": 0.45, "high": 0.55, "n": 10000} for teacher in teachers],
        "verdicts": [{"claim": f"{a} ahead of {b} on {teacher}", "verdict": "held", "difference": -1.0,
                      "low": -1.5, "high": -0.5, "metric": metrics[0]}
                     for teacher in teachers for a in solvers[-2:] for b in solvers[:2]],
        "counts": {"done": len(cells)},
        "published": [{"row": f"paper/{teacher}/{solvers[-1]}/{nfe}", "paper": "A paper, arXiv:0000.00000",
                       "place": "Table 1", "teacher": teacher, "metric": metrics[0], "solver": solvers[-1],
                       "spec": solvers[-1], "nfe": nfe, "value": 2.5, "digits": 2, "note": "", "label": solvers[-1],
                       "differences": ["seeds: not stated, here 50000-79999"]}
                      for teacher in teachers for nfe in budgets[:2]],
        "bibtex": "@article{a2020b,\n  title = {{A} & B},\n  year = {2020}\n}",
    }  # fmt: skip
    (folder / "bundle.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    (folder / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
    np.savez(folder / "images.npz", **({} if failed else images))
    return folder
