"""A realistic bundle, made from numbers measured on the digits teacher, and ways to spoil it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

# Fréchet distance to the data, to the teacher's samples, paired RMSE at NFE 3, 4, 5, 6, 8, 10.
NFE = (3, 4, 5, 6, 8, 10)
MEASURED = {
    "euler": (
        (24.9, 20.0, 10.3, 9.0, 5.1, 3.6),
        (21.6, 17.4, 8.1, 6.8, 3.3, 2.1),
        (0.27, 0.23, 0.18, 0.162, 0.124, 0.103),
    ),
    "dpm": (
        (13.8, 9.6, 0.8, 0.88, 0.38, 0.68),
        (11.2, 7.7, 0.95, 1.81, 0.5, 0.19),
        (0.2, 0.18, 0.15, 0.139, 0.066, 0.029),
    ),
    "unipc": (
        (13.5, 9.0, 1.02, 1.13, 0.55, 1.19),
        (11.0, 7.3, 1.4, 2.29, 0.32, 0.37),
        (0.2, 0.177, 0.16, 0.153, 0.065, 0.034),
    ),
    "ipndm": (
        (7.5, 2.7, 1.01, 0.66, 0.91, 0.57),
        (5.0, 1.51, 0.41, 0.22, 0.27, 0.17),
        (0.16, 0.129, 0.09, 0.072, 0.046, 0.022),
    ),
    "heun": (
        (None, 12.9, None, 5.4, 3.2, 1.8),
        (None, 10.4, None, 3.9, 2.0, 1.0),
        (None, 0.21, None, 0.15, 0.11, 0.08),
    ),
    "gs": (
        (1.05, 0.9, 0.64, 0.54, 0.48, 0.45),
        (0.41, 0.27, 0.2, 0.155, 0.17, 0.17),
        (0.09, 0.067, 0.045, 0.033, 0.021, 0.015),
    ),
    "gas": (
        (None, 0.86, 0.49, 0.55, None, 0.44),
        (None, 0.25, 0.19, 0.156, None, 0.168),
        (None, 0.069, 0.046, 0.034, None, 0.016),
    ),
}
SPECS = {
    "euler": "euler:grid=polynomial:rho=7.0",
    "dpm": "dpm:grid=logsnr:lower_order_final=true:order=3:prediction=data",
    "unipc": "unipc:grid=logsnr:order=3:prediction=data:variant=bh2",
    "ipndm": "ipndm:grid=polynomial:order=4:rho=7.0",
    "heun": "heun:end=sigma_min:grid=polynomial:rho=7.0",
    "gs": "gs",
    "gas": "gas",
}
RECORD: dict[str, Any] = {
    "schema": 1,
    "command": "solverbench run --solvers euler,dpm,unipc,ipndm,heun,gs,gas --nfe 3-6,8,10 --teachers digits",
    "selection": {"solvers": list(SPECS), "nfe": list(NFE), "teachers": ["digits"]},
    "protocol": {
        "samples": "10 000 images per replicate, 3 replicates (seeds 50000-79999)",
        "quantiser": "edm-round",
        "intervals": "95 %, delete-a-group jackknife over 30 seed blocks; the bias of a finite n is not removed",
    },
    "environment": {"python": "3.11.7", "torch": "2.13.0+cpu", "device": "cpu", "commit": "0a84c56"},
    "metrics": {
        "frechet_data": {"label": "Fréchet distance to the data (digits features)", "short": "to data", "log": True},
        "frechet_teacher": {"label": "Fréchet distance to the teacher's samples (digits features)", "log": True},
        "rmse_teacher": {"label": "RMSE to the teacher's endpoint from the same noise (pixels)", "log": True},
    },
    "lines": [
        {
            "teacher": "digits",
            "metric": "frechet_data",
            "label": "teacher, heun 63 calls",
            "value": 0.515,
            "low": 0.49,
            "high": 0.54,
        },
        {
            "teacher": "digits",
            "metric": "frechet_data",
            "label": "data floor",
            "value": 0.13,
            "low": 0.125,
            "high": 0.135,
        },
        {"teacher": "digits", "metric": "frechet_teacher", "label": "teacher floor", "value": 0.145},
    ],
    "notes": ["gas at NFE 5 lies below its teacher's own distance (0.49 < 0.515): see the other two metrics."],
    "verdicts": [
        {
            "claim": "gas is below gs at NFE 4",
            "verdict": "unresolved",
            "difference": -0.04,
            "low": -0.11,
            "high": 0.03,
            "metric": "frechet_data",
        },
        {
            "claim": "gs is below dpm at NFE 4",
            "verdict": "held",
            "difference": -8.7,
            "low": -9.1,
            "high": -8.3,
            "metric": "frechet_data",
        },
    ],
    "counts": {"done": 33, "cached": 5, "failed": 1, "unsupported": 2, "needs-training": 1},
    "tags": [],
}
METRICS = tuple(RECORD["metrics"])
ERRORS = (0.02, 0.03, 0.004)  # relative standard error of each metric


def rows(solvers: tuple[str, ...] = tuple(SPECS), teacher: str = "digits") -> Iterator[dict[str, Any]]:
    """One row per (solver, nfe, metric), as a runner writes them."""
    for solver in solvers:
        for i, nfe in enumerate(NFE):
            for m, metric in enumerate(METRICS):
                value = MEASURED[solver][m][i]
                error = None if value is None else round(value * ERRORS[m], 5)
                yield {
                    "teacher": teacher, "solver": solver, "spec": SPECS[solver], "nfe": nfe, "metric": metric,
                    "value": value, "low": None if value is None else round(value - 2 * value * ERRORS[m], 5),
                    "high": None if value is None else round(value + 2 * value * ERRORS[m], 5), "std_error": error,
                    "n": 10000, "replicates": 3, "seeds": "50000-79999",
                    "reference": "digits teacher, heun 63 calls" if m else "digits data, seeds 1000000-1099999",
                    "extractor": "digits-metric@3fa9c1" if m < 2 else "", "quantiser": "edm-round",
                    "status": _status(solver, nfe), "reason": _reason(solver, nfe), "cell": f"{solver}-{nfe}",
                    "net_passes": nfe, "learned": solver in ("gs", "gas"),
                }  # fmt: skip


def _status(solver: str, nfe: int) -> str:
    if solver == "heun" and nfe % 2:
        return "unsupported"
    if solver == "gas" and nfe in (3, 8):
        return "needs-training" if nfe == 3 else "failed"
    return "cached" if nfe == 3 else "done"


def _reason(solver: str, nfe: int) -> str:
    return {
        "unsupported": f"heun with nfe={nfe}: each step costs 2 evaluations; use nfe={nfe - 1} or nfe={nfe + 1}",
        "needs-training": "run: solverbench train gas --nfe 3 --teacher digits",
        "failed": "FloatingPointError: NaN in call 5 | image_17",
    }.get(_status(solver, nfe), "")


def write_bundle(folder: Path, frame: pd.DataFrame, record: dict[str, Any], *, seeds: int = 8) -> Path:
    """Write the three files of a bundle; images are smooth blobs, one shape per seed, blurrier for smaller NFE."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "results.csv", index=False)
    (folder / "bundle.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    images = {f"{teacher}|teacher|63": _blobs(seeds, 63) for teacher in dict.fromkeys(frame["teacher"])}
    finished = frame[frame["status"].isin(["done", "cached"])]
    for key in dict.fromkeys(zip(finished["teacher"], finished["solver"], finished["nfe"], strict=True)):
        images["|".join(map(str, key))] = _blobs(seeds, key[2])
    np.savez(folder / "images.npz", **images)
    return folder


def _blobs(seeds: int, nfe: int) -> np.ndarray:
    y, x = np.mgrid[0:8, 0:8]
    rings = [np.exp(-((np.hypot(x - 3.5, y - 3.5) - 1 - 0.3 * k) ** 2) / (0.3 + 6 / nfe)) for k in range(seeds)]
    return np.stack([(255 * ring).astype(np.uint8)[None] for ring in rings])


@pytest.fixture(scope="session")
def bundle() -> Callable[[Path], Path]:
    """Write the bundle that `folder` holds into another place, as bundle(place)."""
    return lambda place: write_bundle(place, pd.DataFrame(rows()), json.loads(json.dumps(RECORD)))


@pytest.fixture
def record() -> dict[str, Any]:
    return json.loads(json.dumps(RECORD))


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(rows())


@pytest.fixture
def folder(tmp_path: Path, frame: pd.DataFrame, record: dict[str, Any]) -> Path:
    return write_bundle(tmp_path / "bundle", frame, record)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def writer(frame: pd.DataFrame, record: dict[str, Any], name: str = "other") -> Path:
        return write_bundle(tmp_path / name, frame, record)

    return writer
