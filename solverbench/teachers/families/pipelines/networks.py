"""The networks that a pipeline samples, watched: rows are counted, and calls that only pass a state on are answered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from solverbench.errors import RecordError
from solverbench.teachers.families.pipelines.probe import Call

INPUTS = ("hidden_states", "sample", "x")
"""Names of the state among a network's arguments, where it isn't the first one."""

NETWORK = re.compile(r"^(?!text).*(unet|transformer)")
"""Names of the parts that are sampled; some pipelines have a second one for some times, or for no prompt."""


class Watched:
    """The networks of a pipeline, whose `forward` is replaced.

    Args:
        pipe: the pipeline.

    Raises:
        RecordError: it has no network.
    """

    def __init__(self, pipe: Any) -> None:
        self.modules = networks(pipe)
        self.call: Call | None = None
        self.rows: list[int] | None = []
        self.templates: dict[str, tuple[Any, int]] = {}
        for name, module in self.modules.items():
            self._watch(name, module)

    def _watch(self, name: str, module: Any) -> None:
        """Make a network count its rows while `rows` is a list, and give zeros where a step only passes a state on."""
        real = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = self.call
            if call is not None and self.templates and not (call.last and call.final is None):
                like, rows = self.templates.get(name) or next(iter(self.templates.values()))
                return zeros(like, _rows(args, kwargs), rows)
            count = _rows(args, kwargs)
            if self.rows is not None:
                self.rows.append(count)
            found = real(*args, **kwargs)
            if name not in self.templates:
                self.templates[name] = _shapes(found), count
            return found

        module.forward = forward


def networks(pipe: Any) -> dict[str, Any]:
    """Return the networks that a pipeline samples, by part name.

    Raises:
        RecordError: there is none.
    """
    found = {
        name: part for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module) and NETWORK.search(name)
    }  # fmt: skip
    if not found:
        raise RecordError(
            asked=type(pipe).__name__, wrong="has no unet or transformer", remedy="use sb.Teacher around its network"
        )
    return found


def zeros(like: Any, rows: int, per: int) -> Any:
    """Return zeros in the structure of a network's output for `rows` rows, by `like`, the shapes for `per` rows."""
    if isinstance(like, _Shape):
        return like.blank(like.shape[0] * rows // per)
    if isinstance(like, list):  # a tensor per row, without an axis for rows
        return [like[0].blank() for _ in range(rows)]
    if isinstance(like, dict):
        return type(like)(**{key: zeros(each, rows, per) for key, each in like.items()})
    if isinstance(like, tuple):
        return tuple(zeros(each, rows, per) for each in like)
    return like


class _Shape:
    """Shape, dtype and device of a tensor, without its values."""

    def __init__(self, like: Tensor) -> None:
        self.shape, self.dtype, self.device = tuple(like.shape), like.dtype, like.device

    def blank(self, rows: int | None = None) -> Tensor:
        """Return zeros of this shape, with another number of rows if given."""
        shape = self.shape if rows is None else (rows, *self.shape[1:])
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


def _shapes(found: Any) -> Any:
    if isinstance(found, Tensor):
        return _Shape(found)
    if isinstance(found, dict):
        return type(found)(**{key: _shapes(each) for key, each in found.items()})
    if isinstance(found, (tuple, list)):
        return type(found)(_shapes(each) for each in found)
    return found


def _rows(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the number of rows that a network is given."""
    named = [kwargs[key] for key in INPUTS if key in kwargs]
    for value in (*named, *args):
        if isinstance(value, (Tensor, list)):
            return len(value)
    return 1
