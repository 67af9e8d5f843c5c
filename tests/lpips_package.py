"""A stand-in for the lpips package, whose VGG weights can't be had in a test."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Put it in the package's place, and an empty file where torch keeps VGG's weights; return what it is shown.

    Its distance is the mean absolute difference, with the shape that the package's has.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    class LPIPS(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert net == "vgg"

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            seen.append((a, b))
            return (a - b).abs().mean((1, 2, 3), keepdim=True)

    module = types.ModuleType("lpips")
    module.LPIPS = LPIPS  # type: ignore[attr-defined]
    module.__spec__ = importlib.machinery.ModuleSpec("lpips", None)
    monkeypatch.setitem(sys.modules, "lpips", module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "vgg16-397923af.pth").touch()
    return seen
