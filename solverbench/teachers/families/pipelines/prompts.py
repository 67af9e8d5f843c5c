"""Remembered prompts: a pipeline's text encoders run once per prompt, and batches are put together from their rows."""

from __future__ import annotations

import functools
import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from solverbench.teachers.families.pipelines import memory, precision
from solverbench.teachers.families.pipelines.prompt_files import PromptFiles
from solverbench.teachers.families.text import KEPT

ENCODE = ("encode_prompt", "_encode_prompt")
"""Methods of pipelines that encode prompts, the first that there is."""


PROMPT = re.compile(r"(negative_)?prompt(_\d)?")
"""Names of the arguments that hold a prompt for each image."""


class Unlike(Exception):
    """Rows that cannot be put together into a batch."""


class Remembered:
    """A pipeline's `encode_prompt` with a least-recently-used cache of `kept` bytes.

    Each prompt is encoded alone, so that its embedding does not depend on the others in a batch. Shorter rows are
    padded with zeros at their end, as are their masks.

    Args:
        encode: the bound method.
        dtype: number format of its tensors; the encoders' own if None.
        kept: bytes of the cache.
        files: files in which rows are looked up and kept beyond this process; none if None.
        before: called before text encoders run.
    """

    def __init__(
        self,
        encode: Callable[..., Any],
        dtype: torch.dtype | None = None,
        kept: int = KEPT,
        files: PromptFiles | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.encode, self.dtype, self.kept, self.files, self.before = encode, dtype, kept, files, before
        self.signature = inspect.signature(encode)
        self.found: OrderedDict[str, Any] = OrderedDict()
        self.size = 0
        self.masks: dict[int, torch.dtype] | None = None

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.files is not None:
            self.files.write()
        named = dict(self.signature.bind(*args, **kwargs).arguments)
        if any(_holds_tensor(value) for value in named.values()):
            return self._encoded(named)
        named |= {key: [value] for key, value in named.items() if PROMPT.fullmatch(key) and isinstance(value, str)}
        rows = [key for key, value in named.items() if PROMPT.fullmatch(key) and _is_texts(value)]
        count = len(named[rows[0]]) if rows else 1
        if count == 1 or any(len(named[key]) != count for key in rows):
            return self._row(named)
        each = [self._row(_row_of(named, rows, n)) for n in range(count)]
        try:
            batch = merged(each)
        except Unlike:
            return self._row(named)
        if isinstance(batch, tuple) and any(column is None for column in batch):
            return self._masked(batch, each, named)
        return batch

    def _masked(self, batch: tuple[Any, ...], rows: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return a batch with masks where its rows have none, because alone each is whole, and rows were padded.

        Which columns are masks is learnt by encoding one batch as upstream does.
        """
        lengths = [row[0].shape[1] if isinstance(row[0], Tensor) and row[0].ndim > 1 else 0 for row in rows]
        if len(set(lengths)) == 1:
            return batch
        kept = torch.tensor(lengths)[:, None] > torch.arange(max(lengths))
        if self.masks is None:
            whole = self._encoded(named)
            self.masks = {
                n: mask.dtype
                for n, (mask, column) in enumerate(zip(whole, batch, strict=True))
                if column is None and isinstance(mask, Tensor) and torch.equal(mask.bool().cpu(), kept)
            }
        device = batch[0].device
        return tuple(
            kept.to(device, self.masks[n]) if n in self.masks and column is None else column
            for n, column in enumerate(batch)
        )

    def _row(self, named: Mapping[str, Any]) -> Any:
        key = repr(sorted(named.items()))
        row = self.found.pop(key) if key in self.found else self._new(named)
        self.found[key] = row
        while self.size > self.kept and len(self.found) > 1:
            self.size -= _bytes(self.found.popitem(last=False)[1])
        return row

    def _new(self, named: Mapping[str, Any]) -> Any:
        key = repr(sorted((name, value) for name, value in named.items() if not isinstance(value, torch.device)))
        row = None if self.files is None else self.files.get(key)
        if row is None:
            row = self._encoded(named)
            if self.files is not None:
                self.files.put(key, row)
        self.size += _bytes(row)
        return row

    def _encoded(self, named: Mapping[str, Any]) -> Any:
        kinds = {each.name: each.kind for each in self.signature.parameters.values()}
        more: Mapping[str, Any] = next((named[key] for key in named if kinds[key] is inspect.Parameter.VAR_KEYWORD), {})
        plain = {key: value for key, value in named.items() if kinds[key] is not inspect.Parameter.VAR_KEYWORD}
        if self.before is not None:
            self.before()
        made = self.encode(**plain, **more)
        return made if self.dtype is None else precision.converted(made, self.dtype)


def remember(pipe: Any, dtype: torch.dtype | None, files: PromptFiles | None) -> None:
    """Make a pipeline remember its prompts; see `Remembered`."""
    for method in [each for each in ENCODE if hasattr(pipe, each)][:1]:
        before = functools.partial(memory.release, pipe)
        setattr(pipe, method, Remembered(getattr(pipe, method), dtype, files=files, before=before))


def merged(rows: Sequence[Any]) -> Any:
    """Return one batch of the results of each row's encoder.

    Tensors with one row each are padded to the largest and joined; others, such as position ids, must be equal.

    Raises:
        Unlike: the rows differ in something else.
    """
    first = rows[0]
    if all(isinstance(row, Tensor) for row in rows):
        return _joined(rows)
    if any(type(row) is not type(first) for row in rows):
        raise Unlike
    if isinstance(first, (tuple, list)):
        if any(len(row) != len(first) for row in rows):
            raise Unlike
        if isinstance(first, list) and len(first) == 1:
            return [row[0] for row in rows]
        return type(first)(merged(column) for column in zip(*rows, strict=True))
    if any(row != first for row in rows):
        raise Unlike
    return first


def _joined(rows: Sequence[Tensor]) -> Tensor:
    if any(row.shape != rows[0].shape for row in rows) and any(row.ndim != rows[0].ndim for row in rows):
        raise Unlike
    if all(row.ndim and len(row) == 1 for row in rows):
        largest = [max(sizes) for sizes in zip(*(row.shape for row in rows), strict=True)]
        return torch.cat([_padded(row, largest) for row in rows])
    if any(row.shape != rows[0].shape or not torch.equal(row, rows[0]) for row in rows):
        raise Unlike
    return rows[0]


def _padded(row: Tensor, largest: Sequence[int]) -> Tensor:
    more = [most - size for size, most in zip(row.shape, largest, strict=True)]
    return pad(row, [each for end in reversed(more) for each in (0, end)]) if any(more) else row


def _row_of(named: Mapping[str, Any], rows: Sequence[str], n: int) -> dict[str, Any]:
    one = {key: [named[key][n]] for key in rows}
    return {**named, **one, **({"batch_size": 1} if "batch_size" in named else {})}


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensor, value))
    return not isinstance(value, (str, int, float, bool, dict, type(None), torch.device, torch.dtype))


def _bytes(row: Any) -> int:
    if isinstance(row, Tensor):
        return row.numel() * row.element_size()
    return sum(map(_bytes, row)) if isinstance(row, (list, tuple)) else 0
