"""False numbers planted among 200 stored cells: what `store verify` finds at once, and what only --resample finds.

python benchmarks/forgeries.py [DRAWS] > benchmarks/forgeries.log: makes 200 cells of `digits` in a temporary folder
and plants a metric, the blocks of a cell with metrics that follow from them, and a network that isn't the teacher's.
Then it verifies, draws 10 % of the blocks DRAWS times (10) by `--seed 1`, `2`, ..., and
compares how often the made-up cell is found with the probability in docs/trust.md.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import solverbench as sb
from solverbench import files
from solverbench.bench.audit import resampled
from solverbench.bench.audit.audit import audit
from solverbench.bench.audit.resampled import Share

SOLVERS = "euler,dpm,dpm:order=2,unipc,unipc:order=2,deis,deis:order=2,ipndm,ipndm:order=2,ipndm_v"
NUMBERS = ("value", "low", "high", "std_error", "replicates", "leave_one_out")


def smaller(place: Path, metric: str, factor: float) -> None:
    """Multiply a cell's numbers of a metric, and write them with their checksum."""
    body = files.read_json(place / "metrics.json")
    each = body["measures"][metric]
    each |= {part: (np.array(each[part]) * factor).tolist() for part in NUMBERS}
    files.write_json(place / "metrics.json", body)


def made_up(place: Path) -> None:
    """Quarter the errors in a cell's blocks, and halve its RMSE, which follows from them."""
    for path in (place / "blocks").glob("*.npz"):
        arrays = files.read_arrays(path)
        files.write_arrays(path, {**arrays, "errors": arrays["errors"] / 4})
    smaller(place, "rmse_teacher", 0.5)


def renamed(out: Path, place: Path) -> None:
    """Write a cell as one of another network, at the address of its new key."""
    body = files.read_json(place / "cell.json")
    body["key"]["teacher"] = "0" * 64
    address = files.digest(body["key"])
    there = out / "cells" / address[:2] / address
    shutil.copytree(place, there)
    shutil.rmtree(place)
    files.write_json(there / "cell.json", body)
    metrics = files.read_json(there / "metrics.json")
    files.write_json(there / "metrics.json", {**metrics, "cell": address})


def of_many(total: int, share: Share, draws: int = 2000) -> str:
    """Return in how many draws, without sampling anything, one of the first ten blocks is among the drawn ones."""
    hits = sum(min(resampled.draw(range(total), share, seed)) < 10 for seed in range(1, draws + 1))
    return f"of {draws} draws by --seed 1 to {draws}, {hits / draws:.1%} hold one of ten given blocks"


def told(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def main(draws: int) -> None:
    """Make, plant, verify, draw."""
    when = datetime.now(UTC).isoformat(timespec="minutes")
    told(f"{when}, {platform.processor() or platform.machine()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "runs"
        sb.run(solvers=SOLVERS, nfe="5-24", samples=20, replicates=1, out=out)
        cells = sorted(path.parent for path in out.glob("cells/*/*/cell.json"))
        honest = audit(out)
        told(f"{len(cells)} honest cells: {len(honest.wrong)} found false; {honest.lines()[-1]}")
        smaller(cells[20], "frechet_data", 0.01)
        whole = cells[90]
        made_up(whole)
        renamed(out, cells[150])
        found = audit(out)
        told(f"planted: a metric, a cell of made-up blocks, another network; {len(found.wrong)} found by verify alone:")
        for damage in found.wrong:
            told(f"  {damage.name[:17]}…: {damage.what}")
        hits, share = 0, Share.of("10%")
        for seed in range(1, draws + 1):
            again = audit(out, resample=share, seed=seed)
            blocks = [each for each in again.wrong if "/blocks/" in each.name]
            strangers = [each for each in blocks if whole.name not in each.name]
            hits += bool(blocks)
            told(
                f"--resample 10% --seed {seed}: {again.drawn} of {again.total} blocks, {len(blocks)} of the ten false "
                f"ones found, {len(strangers)} true ones called false"
            )
        chance = resampled.chance(again.total, again.drawn, 10)
        told(f"the made-up cell was found in {hits} of {draws} draws; the probability is {chance:.1%}")
        told(of_many(again.total, share))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
