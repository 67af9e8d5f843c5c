"""Workers of a Ray cluster; only this process writes the store."""

from __future__ import annotations

import importlib
import queue
import sys
from pathlib import Path
from typing import Any, Self

from solverbench import extras, plugins
from solverbench.bench.block import BlockDone, UnitTask
from solverbench.bench.cells import reason
from solverbench.bench.workers.ray_worker import RayWorker, RemoteUnit
from solverbench.errors import MissingError, UserError
from solverbench.files import write_bytes
from solverbench.sampling import endpoints
from solverbench.sampling import exact as solutions
from solverbench.sampling.sample import Cancelled, SampleError

ATTEMPTS = 3
"""Number of workers that may die on a unit before its cells fail."""

POLL = 0.5
"""Seconds between two polls of a worker's progress."""


class RayWorkers:
    """Workers of an existing Ray cluster, or of one started on this machine for the run.

    Args:
        device: device of each worker, cpu or cuda; Ray chooses the GPU.
        workers: number of workers; as many as the cluster has GPUs or cores for if None.
        address: address of a cluster, such as auto or HOST:6379; None starts one here.
        gpus: GPUs per worker, may be a fraction; 1 if None.

    Raises:
        UserError, MissingError: an unknown device, too few resources, Ray not installed, or no cluster at the address.
    """

    def __init__(
        self, device: str, workers: int | None = None, address: str | None = None, gpus: float | None = None
    ) -> None:
        if ":" in device:
            raise UserError(asked=f"device {device!r}", wrong="Ray chooses which GPU a worker gets", remedy="give cuda")
        if workers is not None and workers < 1:
            raise UserError(
                asked=f"workers {workers}",
                wrong="at least one is needed",
                remedy="leave it out to use the whole cluster",
            )
        if gpus is not None and (device == "cpu" or not gpus > 0):
            raise UserError(
                asked=f"gpus-per-worker {gpus:g}",
                wrong=f"needs a number above 0 and device cuda, not {device}",
                remedy="leave it out",
            )
        self.device, self.workers, self.address, self.gpus = device, workers, address, gpus or 1.0
        self.size = 1
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._started = False

    def __enter__(self) -> Self:
        self.ray = _ray()
        if not self.ray.is_initialized():
            self._start()
            self._started = True
        try:
            self.size = self._capacity(self.ray.cluster_resources())
        except UserError:
            self.__exit__()
            raise
        for _ in range(self.size):
            self._idle.put(None)
        return self

    def __exit__(self, *error: object) -> None:
        while not self._idle.empty():
            if (actor := self._idle.get()) is not None:
                self.ray.kill(actor)
        if self._started:
            self.ray.shutdown()

    def run(self, work: UnitTask) -> list[BlockDone | Exception]:
        """Return the result of `work()`, computed by a worker, or by another one if that dies."""
        order = RemoteUnit.of(work.cells, work.block, work.limits, work.out)
        there = {path: (work.out / path).read_bytes() for path in _goals(work) if (work.out / path).exists()}
        for _ in range(ATTEMPTS):
            actor = self._idle.get()
            try:
                actor = self._hired() if actor is None else actor
                found, made = self._awaited(actor, order, there, work)
            except self.ray.exceptions.RayActorError:
                actor = None
                continue
            except self.ray.exceptions.RayTaskError as error:
                return [_failure(error.cause)] * len(work.cells)
            except Cancelled:
                self.ray.kill(actor)
                actor = None
                raise
            finally:
                self._idle.put(actor)
            for path, content in made.items():
                if not (work.out / path).exists():
                    write_bytes(work.out / path, content)
            return found
        lost = SampleError(
            asked="Ray",
            wrong=f"{ATTEMPTS} workers died while computing this",
            remedy="see Ray's logs for the cause, such as too little memory",
        )
        return [lost] * len(work.cells)

    def _start(self) -> None:
        quiet = {"log_to_driver": False, "include_dashboard": False, "logging_level": "ERROR"}
        try:
            self.ray.init(address=self.address, **(quiet if self.address is None else {"log_to_driver": False}))
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise MissingError(
                asked=f"ray-address {self.address!r}",
                wrong=f"no Ray cluster answers ({str(error).splitlines()[0]})",
                remedy="start one with 'ray start --head', or leave --ray-address out for one on this machine",
            ) from None

    def _capacity(self, resources: dict[str, float]) -> int:
        """Return the number of workers: as requested, or as many as the cluster has resources for."""
        kind, each = ("GPU", self.gpus) if self.device == "cuda" else ("CPU", 1.0)
        total = resources.get(kind, 0.0)
        most = int(total / each + 1e-9)
        if most < (self.workers or 1):
            asked = f"workers {self.workers or 1} with {each:g} {kind} each"
            raise MissingError(
                asked=asked, wrong=f"the Ray cluster has {total:g} {kind}s", remedy=f"ask for at most {most} workers"
            )
        return self.workers or most

    def _hired(self) -> Any:
        gpus = self.gpus if self.device == "cuda" else 0
        options = {"num_cpus": 1 if self.device == "cpu" else 0, "num_gpus": gpus, "max_concurrency": 2}
        hired = self.ray.remote(RayWorker).options(**options)
        return hired.remote(str(Path.cwd()), [path for path in sys.path if path], plugins.loaded())

    def _awaited(
        self, actor: Any, order: RemoteUnit, there: dict[str, bytes], work: UnitTask
    ) -> tuple[list[BlockDone | Exception], dict[str, bytes]]:
        answer = actor.do.remote(self.ray.cloudpickle.dumps(order), there)
        while not self.ray.wait([answer], timeout=POLL)[0]:
            for event in self.ray.get(actor.said.remote()):
                work.told(*event)
            work.stop.check()
        found, made = self.ray.get(answer)
        for event in self.ray.get(actor.said.remote()):
            work.told(*event)
        return found, made


def _failure(cause: BaseException) -> SampleError:
    """Return the error of a unit whose worker raised `cause`."""
    if isinstance(cause, UserError):
        return SampleError.of(cause)
    return SampleError(asked="Ray worker", wrong=reason(cause), remedy="correct this, and run again")


def _goals(work: UnitTask) -> list[str]:
    """Return the files that the images are compared with, as paths below the results folder."""
    cell = work.cells[0]
    found = []
    if pairs := cell.protocol.pairs(work.block):
        found.append(endpoints.location(cell.teacher, cell.targets, pairs, Path(), batch=cell.protocol.batch))
    if cell.exact:
        found.append(solutions.location(cell.teacher, cell.protocol.solves(work.block), Path()))
    return [str(path) for path in found]


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise MissingError(
            asked="engine ray",
            wrong="the package ray isn't installed",
            remedy=f"run {extras.install('ray')}, or leave --engine out",
        ) from None
