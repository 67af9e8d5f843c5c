"""Feature extractors whose results are comparable with papers, by user-facing name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from solverbench import registries
from solverbench.errors import UserError
from solverbench.metrics.extractors import inception as fid
from solverbench.metrics.extractors.transformers import CLIP, CLIPLarge, DINOv2

NAMES = registries.extractors.builtin
"""Names of the built-in extractors."""


FOLDERS = {CLIP.folder: "clip", CLIPLarge.folder: "clip_l", DINOv2.folder: "dinov2"}
"""Folder of weights, with which an identity begins, to the extractor's name."""


class Network(Protocol):
    """A feature extractor for images."""

    size: int

    @property
    def identity(self) -> str:
        """The extractor's name in results, with a sha256 of its weights."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, size] of images [B, C, H, W] uint8."""


def load(name: str, device: str = "cpu") -> Network:
    """Return the extractor `name`; its weights are located now and loaded on first use.

    Raises:
        UserError: there is no such extractor.
        MissingError: its package or its weights are missing.
        RecordError: the files are of another network.
    """
    if name == "clip":
        return CLIP(device)
    if name == "clip_l":
        return CLIPLarge(device)
    if name == "dinov2":
        return DINOv2(device)
    if name not in NAMES:
        raise UserError(asked=f"extractor {name!r}", wrong="not known", remedy=f"use one of {', '.join(NAMES)}")
    return fid.Inception(name, device)
