"""Samples as PNG files or one NPZ, to be measured with other tools."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from solverbench import files, seeds
from solverbench.errors import BudgetError, UserError
from solverbench.learned.equip import tableau
from solverbench.method.spec import make
from solverbench.method.suspects import believed
from solverbench.metrics.quantise import quantise
from solverbench.sampling import devices, sample
from solverbench.sampling.sample import batches
from solverbench.store.folder import Store
from solverbench.teachers.loading import load_teacher


def write(
    solver: str, nfe: int, chosen: str, kind: str, folder: Path, batch: int, teacher: str, device: str, out: Path
) -> str:
    """Sample the images of seeds `chosen` ("50000-50063"), write them to `folder`, and return a summary line.

    Args:
        solver: spec of the solver.
        kind: "png", a file per image, named by its seed; or "npz", one file with `images` [n, H, W, C] uint8 and
            `seeds` [n].
        batch: images per call.
        out: results folder, searched for the parameters of a learned solver.

    Raises:
        UserError: a bad spec, budget, seed range, batch or device, a solver without trained parameters, or a folder
            with other files, which would be measured too.
    """
    if nfe < 1 or batch < 1:
        what, value = ("--nfe", nfe) if nfe < 1 else ("--batch", batch)
        raise (BudgetError if nfe < 1 else UserError)(
            asked=f"{what} {value}", wrong="below 1", remedy="give a positive number"
        )
    wanted = seeds.parse(chosen)
    own = {f"{seed:09d}.png" for seed in wanted} if kind == "png" else {f"{seeds.label(wanted)}.npz"}
    if others := sorted({path.name for path in files.listed(folder)} - own):
        raise UserError(
            asked=folder,
            wrong=f"holds other files ({len(others)}, such as {others[0]})",
            remedy="give --to an empty folder",
        )
    Store.look(out)
    network = load_teacher(teacher, devices.check_device(device))
    method = make(solver)
    plan = believed(method, tableau(method, nfe=nfe, teacher=network, out=out)).plan_from_noise(network.schedule)
    fit, made = sample.BatchLimit(batch), []
    for part in batches(wanted, batch):
        states = sample.sample(plan, network, part, nfe=nfe, watch=method.adapt, fit=fit)
        made.append(quantise(sample.decoded(network, states, fit)).cpu())
    images = torch.cat(made).permute(0, 2, 3, 1).numpy()
    if kind == "npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=images, seeds=np.array(wanted))
        path = folder / own.pop()
        files.write_bytes(path, buffer.getvalue())
        return f"{len(images)} images in {path}"
    for seed, image in zip(wanted, images, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "png")
        files.write_bytes(folder / f"{seed:09d}.png", buffer.getvalue())
    return f"{len(images)} images in {folder}"
