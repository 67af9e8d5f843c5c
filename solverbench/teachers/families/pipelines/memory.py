"""A pipeline's parts on and off the device: model offloading by accelerate, and decoding in tiles and slices."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from solverbench.errors import MissingError, SpecError
from solverbench.teachers.families import assembly


def offloads(device: str) -> bool:
    """Return whether there is anywhere to move parts from: on the CPU they are already where they would be put."""
    return torch.device(device).type != "cpu"


def place(asked: str, pipe: Any, device: str, *, offload: bool) -> str:
    """Move the pipeline's parts to the device, or make them move there when they are needed; return a note, or "".

    With `offload` a part is on the device while it runs, and leaves when the next one does: text encoders are there for
    new prompts, the network while it is sampled, the decoder for images.

    Raises:
        MissingError: accelerate is missing.
        SpecError: the pipeline names no order for offloading.
    """
    if not offload or not offloads(device):
        with assembly.quiet():
            pipe.to(device)
        return "enable_model_cpu_offload does nothing without a GPU: all parts are on the CPU" if offload else ""
    if importlib.util.find_spec("accelerate") is None:
        raise MissingError(
            asked=f"{asked}:enable_model_cpu_offload=true", wrong="needs accelerate, which isn't installed",
            remedy="pip install accelerate, or leave the option out",
        )  # fmt: skip
    if pipe.model_cpu_offload_seq is None:
        raise SpecError(
            asked=f"{asked}:enable_model_cpu_offload=true",
            wrong=f"{type(pipe).__name__} names no order in which its parts are moved", remedy="leave it out",
        )  # fmt: skip
    with assembly.quiet():
        pipe.enable_model_cpu_offload(device=device)
    return ""


def release(pipe: Any) -> None:
    """Move all parts of an offloading pipeline off the device, as the end of its own call does.

    Calls that are stopped leave a network there, on which no hook of a text encoder waits.
    """
    for hook in getattr(pipe, "_all_hooks", ()):
        hook.offload()


def refuse_gradients(asked: str, kind: str) -> None:
    """Raise `SpecError`: a part that was moved off the device since it ran has no gradient there."""
    raise SpecError(
        asked=f"{asked}:enable_model_cpu_offload=true",
        wrong=f"gradients go through several parts of {kind} at once, which are never on the device together",
        remedy="train by a loss of the states (l1, l2 or huber) where one network is sampled, or leave it out",
    )


def decode_by(asked: str, pipe: Any, *, tiling: bool, slicing: bool) -> None:
    """Make the decoder work on tiles of its input (`vae.enable_tiling`) and on one image at a time (`enable_slicing`).

    Raises:
        SpecError: the pipeline has no decoder that can.
    """
    for wanted, what in ((tiling, "tiling"), (slicing, "slicing")):
        if not wanted:
            continue
        able = [part for part in pipe.components.values() if hasattr(part, f"use_{what}")]
        if not able:
            raise SpecError(
                asked=f"{asked}:enable_vae_{what}=true", wrong=f"no part of {type(pipe).__name__} has {what}",
                remedy="leave it out",
            )  # fmt: skip
        for part in able:
            getattr(part, f"enable_{what}")()
