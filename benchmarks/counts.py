"""Operation counts of a piece of code: tensor operations and the bytes that they read and write. No timing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FREE = ("empty", "new_empty", "empty_like", "empty_strided", "detach", "lift_fresh", "alias", "_reshape_alias")
"""Operations that read and write no numbers; they are not counted."""


class Operations(TorchDispatchMode):
    """Counts the operations executed while it is active, without views and allocations.

    Attributes:
        names: number of executions by operation.
        moved: bytes of tensors that they read and wrote.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.moved = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in FREE and not _view(func):
            self.names[name] += 1
            self.moved += _bytes((args, kwargs)) + _bytes(made) - _unread(func, args)
        return made

    @property
    def total(self) -> int:
        """The number of all operations."""
        return self.names.total()


def _view(func: Any) -> bool:
    """Return whether the operation returns a view of its input."""
    returned = [each.alias_info for each in func._schema.returns]
    return any(info is not None and not info.is_write for info in returned)


def _unread(func: Any, args: Sequence[Any]) -> int:
    """Return the bytes of arguments that are only written."""
    return _bytes(args[0]) if func.overloadpacket.__name__ in ("copy_", "fill_", "zero_", "normal_") else 0


def _bytes(tree: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def per_step(run: Any, steps: int) -> dict[str, float]:
    """Return operations and bytes of `run` divided by its steps."""
    with torch.no_grad(), Operations() as operations:
        run()
    return {"operations": operations.total / steps, "bytes": operations.moved / steps}
