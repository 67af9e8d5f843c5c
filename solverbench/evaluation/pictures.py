"""Images in a fixed order, wherever they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Generic, TypeVar

from torch import Tensor

Item = TypeVar("Item")


def unheard(line: str) -> None:
    """Drop a note."""


class InOrder(Generic[Item]):
    """A long sequence that is read part after part: a part continues where the last one ended.

    So a compressed file is decompressed once, and not from its beginning for every part.

    Args:
        start: returns the items from a number on.
    """

    def __init__(self, start: Callable[[int], Iterator[Item]]) -> None:
        self._start, self._next = start, -1
        self._items: Iterator[Item] = iter(())

    def take(self, part: range) -> list[Item]:
        """Return the items numbered `part`; fewer at the end of the sequence."""
        if part.start != self._next:
            self._items = self._start(part.start)
        self._next = -1
        found = list(islice(self._items, len(part)))
        self._next = part.stop
        return found


class Pictures(ABC):
    """Images in a fixed order."""

    @property
    def crop(self) -> str:
        """The rule by which they are cropped and scaled; empty if none."""
        return ""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def identity(self) -> str:
        """The identity of these images, found without decoding them."""

    @property
    def fixed(self) -> bool:
        """Whether the identity determines the images, so that their pixels need not be hashed."""
        return False

    @property
    @abstractmethod
    def origin(self) -> str:
        """Their origin as human-readable text."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Further facts that are stored with a reference of them."""
        return {}

    @property
    def said(self) -> str:
        """A summary: the number of images, and the number of skipped files by reason."""
        return f"{len(self)} images"

    @abstractmethod
    def read(self, part: range, note: Callable[[str], None] = unheard) -> Iterator[Tensor]:
        """Yield uint8 batches [B, C, H, W] of the images numbered `part`, in order; a batch has images of one size.

        Args:
            note: callback for a remark on an image, once for each image with a remark.

        Raises:
            RecordError: a file is not an image.
        """
