"""Optional TensorBoard log of a training, in addition to history.csv."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from solverbench import extras
from solverbench.errors import MissingError


def writer(folder: Path) -> Callable[[Mapping[str, float]], None]:
    """Return a callback that writes the numbers of a history row to `folder`.

    Raises:
        MissingError: the package tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingError(
            asked="--tensorboard", wrong="the package isn't installed", remedy=f"run {extras.install('tensorboard')}"
        )
    from torch.utils.tensorboard import SummaryWriter  # imports tensorboard

    summary = SummaryWriter(folder)

    def write(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "iteration":
                summary.add_scalar(name, value, int(row["iteration"]))
        summary.flush()

    return write
