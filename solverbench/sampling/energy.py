"""What the driver of an NVIDIA device tells: the energy that it has drawn, and its own version."""

from __future__ import annotations

import importlib
from typing import Any

import torch


def joules(device: str) -> float | None:
    """Return what the device has drawn since its driver was loaded; None if that isn't counted, or not to be read.

    NVIDIA's devices count it from Volta on; it is read by the package nvidia-ml-py (extra `energy`). The whole device
    is meant: other programs on it are in the number.
    """
    if torch.device(device).type != "cuda" or (nvml := _nvml()) is None:
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except nvml.NVMLError:
        return None


def driver() -> str:
    """Return the driver's version; empty if it can't be asked."""
    if (nvml := _nvml()) is None:
        return ""
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return ""


def _nvml() -> Any:
    """NVIDIA's management library, ready to be asked; None without it."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
