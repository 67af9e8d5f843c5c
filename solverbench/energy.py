"""The energy that a CUDA device has drawn, where its driver counts it."""

from __future__ import annotations

import torch


def joules(device: str) -> float | None:
    """Return what the device has drawn since its driver was loaded; None if that isn't counted, or not to be read.

    NVIDIA's devices count it from Volta on; it is read by the package nvidia-ml-py (extra `energy`). The whole device
    is meant: other programs on it are in the number.
    """
    if torch.device(device).type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return None
