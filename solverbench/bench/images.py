"""Samples as PNG files or one NPZ, to be measured with other tools."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from solverbench import files, seeds
from solverbench.bench.protocol import MOST
from solverbench.errors import BudgetError, UserError
from solverbench.learned.equip import tableau
from solverbench.method.solver import Solver
from solverbench.method.spec import make
from solverbench.method.suspects import believed
from solverbench.method.tableau import Plan
from solverbench.metrics.quantise import quantise
from solverbench.sampling import devices, sample
from solverbench.sampling.sample import batches
from solverbench.store.folder import Store
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import Teacher

NPZ_BYTES = files.ARRAY_BYTES
"""Largest size of the images of an .npz, in bytes; PNG files are written batch after batch."""


def write(
    solver: str,
    nfe: int,
    chosen: str,
    kind: str,
    folder: Path,
    batch: int,
    teacher: str,
    device: str,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Sample the images of seeds `chosen` ("50000-50063"), write them to `folder`, and return a summary line.

    Args:
        solver: spec of the solver.
        kind: "png", a file per image, named by its seed; or "npz", one file with `images` [n, H, W, C] uint8 and
            `seeds` [n].
        batch: images per call.
        out: results folder, searched for the parameters of a learned solver.
        progress: called after each batch with the number of images so far and of all.

    Raises:
        UserError: a bad spec, budget, seed range, batch or device, more than `MOST` images or an .npz of more than
            `NPZ_BYTES`, a solver without trained parameters, or a folder with other files, which would be
            measured too.
    """
    if nfe < 1 or batch < 1:
        what, value = ("--nfe", nfe) if nfe < 1 else ("--batch", batch)
        raise (BudgetError if nfe < 1 else UserError)(
            asked=f"{what} {value}", wrong="below 1", remedy="give a positive number"
        )
    wanted = seeds.parse(chosen)
    if max(len(wanted), batch) > MOST:
        asked = f"--seeds {chosen}" if len(wanted) > MOST else f"--batch {batch}"
        raise UserError(asked=asked, wrong=f"more than {MOST} images", remedy="give fewer")
    packed = f"{seeds.label(wanted)}.npz" if kind == "npz" else ""
    names = [path.name for path in files.listed(folder)]
    if others := [name for name in names if name != packed and not (kind == "png" and _own(name, wanted))]:
        raise UserError(
            asked=folder,
            wrong=f"holds other files ({len(others)}, such as {others[0]})",
            remedy="give --to an empty folder",
        )
    Store.look(out)
    network = load_teacher(teacher, devices.check_device(device), out=out)
    method = make(solver)
    plan = believed(method, tableau(method, nfe=nfe, teacher=network, out=out)).plan_from_noise(network.schedule)
    made = _made(plan, network, wanted, nfe, method, batch, progress or (lambda done, total: None))
    if kind == "npz":
        buffer, whole = io.BytesIO(), []
        for _, pictures in made:
            whole.append(pictures)
            if (size := len(wanted) * pictures[0].nbytes) > NPZ_BYTES:
                wrong = f"{size} bytes of images, but an .npz holds at most {NPZ_BYTES}"
                raise UserError(asked=f"--seeds {chosen}", wrong=wrong, remedy="give fewer, or --format png")
        np.savez_compressed(buffer, images=np.concatenate(whole), seeds=np.array(wanted))
        files.write_bytes(folder / packed, buffer.getvalue())
        return f"{len(wanted)} images in {folder / packed}"
    for part, pictures in made:
        for seed, image in zip(part, pictures, strict=True):
            buffer = io.BytesIO()
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "png")
            files.write_bytes(folder / f"{seed:09d}.png", buffer.getvalue())
    return f"{len(wanted)} images in {folder}"


def _made(
    plan: Plan,
    network: Teacher,
    wanted: range,
    nfe: int,
    method: Solver,
    batch: int,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[range, NDArray[np.uint8]]]:
    """Yield the images [B, H, W, C] uint8 of a batch after the other, with their seeds."""
    fit = sample.BatchLimit(batch)
    for part in batches(wanted, batch):
        states = sample.sample(plan, network, part, nfe=nfe, watch=method.adapt, fit=fit)
        yield part, quantise(sample.decoded(network, states, fit)).cpu().permute(0, 2, 3, 1).numpy()
        progress(part.stop - wanted.start, len(wanted))


def _own(name: str, wanted: range) -> bool:
    """Return whether a file's name is that of the image of one of these seeds."""
    number = name.removesuffix(".png")
    return number.isdecimal() and name == f"{int(number):09d}.png" and int(number) in wanted
