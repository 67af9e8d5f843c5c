"""Images in a fixed order, wherever they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor


def unheard(line: str) -> None:
    """Drop a note."""


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
