"""Readings from the NVIDIA driver: energy consumed by a device, and the driver version."""

from __future__ import annotations

import importlib
from typing import Any

import torch


def joules(device: str) -> float | None:
    """Return the device's energy in joules since its driver was loaded; None if it is not counted or cannot be read.

    NVIDIA devices count it from Volta on; it is read with the package nvidia-ml-py (extra `energy`). The number covers
    the whole device, including other programs on it.
    """
    if torch.device(device).type != "cuda" or (nvml := _nvml()) is None:
        return None
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except nvml.NVMLError:
        return None


def driver() -> str:
    """Return the driver's version; empty if it cannot be read."""
    if (nvml := _nvml()) is None:
        return ""
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        return ""


def _nvml() -> Any:
    """Return NVIDIA's management library, initialised; None if it is not available."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
