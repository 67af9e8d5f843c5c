"""Time and memory to plan and to rerun a grid of finished cells; and memory for growing numbers of images.

python benchmarks/grid.py: a synthetic store of 5000 cells, 150 000 blocks, is written with the store's own writers,
then planned and run, each in a separate process; a line of JSON for each. --profile shows where the time goes.
`python benchmarks grid` adds a record of the machine.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import harness
import numpy as np
import torch
from torch import Tensor

import solverbench as sb
from solverbench.bench import measure as measures
from solverbench.bench import plan, resolve, run
from solverbench.bench.cells import Cell
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.metrics.evaluation import Evaluation, Reference
from solverbench.metrics.frechet import Moments
from solverbench.store.folder import BlockResult, Store

SHAPE, FEATURES = (1, 4, 4), 4
BUDGETS = "3-10"


def teacher(name: str = "made-up") -> sb.Teacher:
    """Return a Gaussian teacher whose features are four pixels of an image."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + float(sigma) ** 2)

    def extractor(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :FEATURES].float() / 255

    rows = np.random.default_rng(0).normal(size=(1000, FEATURES))
    reference = Reference(Moments.of(rows), "made up", "0" * 64)
    evaluation = Evaluation(extractor, "four pixels", "edm-round", reference, reference, {})
    return sb.Teacher(denoise, name, SHAPE, identity=name, sampler="euler", sampler_nfe=10, evaluation=evaluation)


def solvers(count: int) -> list[str]:
    """Return `count` specs: multistep solvers and Euler on grids of different curvature."""
    kinds = ("dpm:order=2", "dpm:order=3", "euler", "unipc:order=2", "ipndm:order=3")
    return [f"{kinds[n % len(kinds)]}:grid=polynomial:rho={3 + 0.02 * (n // len(kinds)):g}" for n in range(count)]


def make_up(out: Path, wanted: list[Cell]) -> None:
    """Store results for all cells: the first cell's with the store's writers, the others' blocks as links to them."""
    store = Store.open(out)
    chance = np.random.default_rng(1)
    protocol = wanted[0].protocol
    first = store.cell(wanted[0].key)
    for number, block in enumerate(protocol.blocks):
        rows = chance.normal(size=(len(block), FEATURES))
        pictures = chance.integers(0, 255, size=(8 if number == 0 else 0, *SHAPE), dtype=np.uint8)
        first.write_block(block, BlockResult(Moments.of(rows), 3, pictures, {"errors": rows[:, 0] ** 2}))
    found = measures.measure(wanted[0], [first.read_block(block) for block in protocol.blocks])
    numbers = {name: each.as_dict() for name, each in found.found.items()}
    cost = {"seconds": 1.0, "denoiser_seconds": 0.9, "images": protocol.block, "peak_memory_bytes": 10**9}
    for cell in wanted:
        folder = store.cell(cell.key)
        folder.describe(cell.key, cell.names)
        if folder != first:
            (folder.path / "blocks").mkdir(parents=True, exist_ok=True)
            for path in (first.path / "blocks").iterdir():
                os.link(path, folder.path / "blocks" / path.name)
        folder.finish({"nfe": cell.nfe, "measures": numbers})
        labels = [path.stem for path in sorted((first.path / "blocks").iterdir())]
        folder.write_timing({"attempts": [], "blocks": dict.fromkeys(labels, cost)})


def timed(name: str, work: Callable[[], object], profile: bool) -> None:
    """Execute `work` and print a line of JSON on its time and memory."""
    begun, used = time.perf_counter(), time.process_time()
    if profile:
        watch = cProfile.Profile(time.process_time)
        watch.runcall(work)
        pstats.Stats(watch, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
    else:
        work()
    line = {
        "benchmark": "grid",
        "case": name,
        "seconds": round(time.perf_counter() - begun, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    """Write the synthetic store and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--teachers", type=int, default=1, help="of the cells, which are so many fewer solvers")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", choices=["plan", "run", "images", "make"], help="in this process, on --out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    specs = solvers(given.cells // given.teachers // 8)
    teachers = [teacher(f"made-up-{n}") for n in range(given.teachers)]
    selection = {"solvers": specs, "nfe": BUDGETS, "teachers": teachers, "samples": 100, "out": given.out}
    if given.only == "make":
        asked = RunOptions(**selection)
        os.fsync = lambda file: None  # type: ignore[assignment]
        make_up(given.out, resolve.resolve(asked, Protocol.of(asked)))
    elif given.only == "plan":
        timed(f"plan {given.cells} finished cells", lambda: plan.plan(RunOptions(**selection)).summary(), given.profile)
    elif given.only == "run":
        timed(f"run {given.cells} finished cells", lambda: run.run(RunOptions(**selection)).summary(), given.profile)
    elif given.only == "images":
        for samples in (5_000, 20_000, 80_000):
            fewer = selection | {"solvers": "euler", "nfe": 3, "samples": samples, "replicates": 1, "batch": 100}
            timed(f"run {samples} images", partial(run.run, RunOptions(**fewer)), given.profile)
    else:
        own = [f"--cells={given.cells}", f"--teachers={given.teachers}"] + ["--profile"] * given.profile
        for line in _each(own, given.out):
            print(json.dumps(line), flush=True)


def measure(options: harness.Options) -> Iterator[harness.Line]:
    """Yield the figures."""
    yield from _each([f"--cells={80 if options.quick else 5000}"], None)


def _each(own: Sequence[str], out: Path | None) -> Iterator[harness.Line]:
    """Yield the lines of the parts, each executed in a separate process."""
    with tempfile.TemporaryDirectory() as place:
        for only in ("make", "plan", "run", "images"):
            if only == "images":
                shutil.rmtree(Path(place) / "cells", ignore_errors=True)
            command = [sys.executable, __file__, *own, f"--out={out or place}", f"--only={only}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            yield from map(json.loads, done.stdout.splitlines())


if __name__ == "__main__":
    main()
