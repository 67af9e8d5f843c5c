"""A worker of a Ray cluster, with its own copy of each teacher and a scratch directory per unit."""

from __future__ import annotations

import dataclasses
import os
import pickle
import queue
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from solverbench import plugins, registries
from solverbench._version import __version__
from solverbench.bench.block import BlockDone, UnitTask
from solverbench.bench.cells import Cell, reason
from solverbench.errors import UserError
from solverbench.evaluation.selection import Measurement
from solverbench.registries import Offer
from solverbench.sampling import devices
from solverbench.sampling.sample import Cancel, SampleError
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher


@dataclass(frozen=True)
class RemoteUnit:
    """A unit of work as sent to a worker.

    Args:
        cells: cells of one teacher, sent without it if `load_teacher` can load it from `spec`.
        block: image seeds.
        limits: time limit of each cell, in seconds; empty for no limit.
        spec: spec of the teacher; empty if the teacher is sent along.
        name, device, identity: attributes of the teacher.
        out: the sender's results folder, for references that are stored there.
        version: the sender's version of SolverBench.
        typed: required plugins that were registered in the run's process without a file.
    """

    cells: Sequence[Cell]
    block: range
    limits: Sequence[float]
    spec: str
    name: str
    device: str
    identity: str
    out: str
    version: str = __version__
    typed: tuple[tuple[str, Offer], ...] = ()

    @classmethod
    def of(cls, cells: Sequence[Cell], block: range, limits: Sequence[float], out: Path) -> RemoteUnit:
        """Return the unit to send for these cells of one teacher."""
        teacher, measurement = cells[0].teacher, cells[0].measurement
        if teacher.spec:
            stand_in = Teacher(_nobody, teacher.name, teacher.shape)
            unmeasured = Measurement(measurement.selection, measurement.device)
            cells = [dataclasses.replace(cell, teacher=stand_in, measurement=unmeasured) for cell in cells]
        typed = plugins.typed("teacher", [teacher.base])
        typed += plugins.typed("metric", measurement.plugged)
        typed += plugins.typed("extractor", filter(None, [measurement.extractor]))
        about = teacher.spec, teacher.name, teacher.device, teacher.identity
        return cls(cells, block, limits, *about, str(Path(out).resolve()), typed=tuple(typed))


def _nobody(x: Tensor, sigma: Tensor) -> Tensor:
    raise AssertionError("this placeholder is never called")


class RayWorker:
    """The actor that runs in a worker's process.

    Args:
        folder: working directory, for relative paths.
        paths: module search path of the run's process, for modules such as a user's own teacher.
        held: plugin files loaded in the run's process.
    """

    def __init__(self, folder: str, paths: Sequence[str] = (), held: Sequence[plugins.Held] = ()) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)
        sys.path += [path for path in paths if path not in sys.path and Path(path).exists()]
        self._held = held
        self._teachers: dict[tuple[str, str], tuple[Teacher, Measurement]] = {}
        self._said: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()

    def said(self) -> list[tuple[int, int, int]]:
        """Return the progress since the last call: (cell index, images done, new denoiser calls x images)."""
        found = []
        while not self._said.empty():
            found.append(self._said.get())
        return found

    def do(self, order: bytes, there: dict[str, bytes]) -> tuple[list[BlockDone | Exception], dict[str, bytes]]:
        """Return the result or error of each cell, and the contents of new files by path.

        Args:
            order: pickled `RemoteUnit`.
            there: contents of files that the unit may need, by path below the results folder.
        """
        for each in self._held:
            plugins.take(each)
        try:
            asked: RemoteUnit = pickle.loads(order)  # from the process of the same run
        except Exception as error:
            raise SampleError(
                asked="Ray worker",
                wrong=f"can't load what this run uses ({reason(error)})",
                remedy="install the same packages on the worker",
            ) from None
        with tempfile.TemporaryDirectory(prefix="solverbench-") as folder:
            out = Path(folder)
            for path, content in there.items():
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                (out / path).write_bytes(content)
            try:
                with devices.pool(1) as threads:
                    found = threads.submit(self._work(asked, out)).result()
            except Exception as error:
                found = [error] * len(asked.cells)
            made = {
                str(path.relative_to(out)): path
                for name in ("targets", "solutions")
                for path in out.glob(f"{name}/**/*")
            }
            new = {path: file.read_bytes() for path, file in made.items() if file.is_file() and path not in there}
        return [each if isinstance(each, BlockDone) else _sendable(each) for each in found], new

    def _work(self, order: RemoteUnit, out: Path) -> UnitTask:
        if order.version != __version__:
            raise UserError(
                asked="Ray worker",
                wrong=f"has SolverBench {__version__}, but the run has {order.version}",
                remedy="install the same version",
            )
        for kind, offer in order.typed:
            registries.extensible[kind].adopt(offer)
        teacher, measurement = self._teacher(order)
        cells = [dataclasses.replace(cell, teacher=teacher, measurement=measurement) for cell in order.cells]
        return UnitTask(cells, order.block, out, Cancel(), order.limits, lambda *event: self._said.put(event))

    def _teacher(self, order: RemoteUnit) -> tuple[Teacher, Measurement]:
        """Return the unit's teacher and its measurement in this process."""
        if not order.spec:
            return order.cells[0].teacher, order.cells[0].measurement
        if (order.spec, order.device) not in self._teachers:
            protocol = order.cells[0].protocol
            found = dataclasses.replace(load_teacher(order.spec, order.device, out=order.out), name=order.name)
            if found.identity != order.identity:
                raise UserError(
                    asked=f"teacher {order.name}",
                    wrong=f"{order.spec} is another network on this worker",
                    remedy="give every worker the same files",
                )
            measurement = protocol.judging.of_teacher(found, protocol.samples, protocol.block, Path(order.out))
            self._teachers[order.spec, order.device] = found, measurement
        return self._teachers[order.spec, order.device]


def _sendable(error: Exception) -> Exception:
    """Return the error with its traceback as a note; a `SampleError` with the same text if it can't be pickled."""
    told = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = SampleError(asked="Ray worker", wrong=reason(error), remedy="correct this, and run again")
    error.add_note(told)
    return error
