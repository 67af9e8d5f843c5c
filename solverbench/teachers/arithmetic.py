"""A network's number format, memory layout and compilation, chosen by the user and recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from solverbench.errors import MissingError, SpecError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Arithmetic:
    """The number format and memory layout of a network. Images, noise and the solver's sums always stay float32.

    Args:
        dtype: format of weights and activations: fp32, fp16 or bf16.
        channels_last: whether images are stored with the channel as the fastest dimension.
        compile: whether torch.compile compiles the network, at the first call.

    Raises:
        SpecError: an unknown dtype.
    """

    dtype: str = "fp32"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecError(asked=f"dtype={self.dtype}", wrong="not a number format", remedy=f"use {', '.join(DTYPES)}")

    @property
    def torch(self) -> torch.dtype:
        """The number format as a torch dtype."""
        return DTYPES[self.dtype]

    @property
    def label(self) -> str:
        """The choice as text: part of every key, because it changes the last bits."""
        dtype = str(self.torch).removeprefix("torch.")
        return dtype + " channels_last" * self.channels_last + " compiled" * self.compile

    def check(self, device: str) -> None:
        """Refuse a format that the device does not support natively: emulation is tens of times slower.

        Raises:
            MissingError: the CPU or CUDA device does not support the format.
        """
        if self.dtype == "fp32" or supports(self.torch, device):
            return
        where = "this CPU has" if torch.device(device).type == "cpu" else f"{device} has"
        raise MissingError(
            asked=f"dtype={self.dtype} on {device}",
            wrong=f"{where} no instructions for it, and emulation is many times slower than fp32",
            remedy="leave dtype out, or use a device that has them",
        )

    def prepare(self, network: Network, device: str, *, float32: Sequence[str] = ()) -> Network:
        """Return the network, frozen, on `device` in this arithmetic; it is the same object unless it is compiled.

        Args:
            float32: last name components of the modules that stay float32.

        Raises:
            MissingError: see `check`.
        """
        self.check(device)
        network = network.requires_grad_(False).eval().to(device=device, dtype=self.torch)
        if self.dtype != "fp32":
            for name, module in network.named_modules():
                if name.rpartition(".")[2] in float32:
                    module.float()
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return torch.compile(network) if self.compile else network  # type: ignore[return-value]

    def cast(self, x: Tensor) -> Tensor:
        """Return `x` in the network's format and memory layout."""
        x = x.to(self.torch)
        return x.to(memory_format=torch.channels_last) if self.channels_last and x.dim() == 4 else x


def supports(dtype: torch.dtype, device: str) -> bool:
    """Return whether `device` supports `dtype` natively."""
    if torch.device(device).type == "cuda":
        return dtype != torch.bfloat16 or torch.cuda.get_device_capability(device) >= (8, 0)
    checks: dict[torch.dtype, Callable[[], bool]] = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return bool(torch.backends.mkldnn.is_available()) and bool(checks[dtype]())  # type: ignore[no-untyped-call]
