"""What a pipeline decodes: its images are taken where it hands them to its image processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Decoded(BaseException):
    """Ends a pipeline's call with its decoded images, on [-1, 1] and before they are clipped."""

    def __init__(self, images: Tensor) -> None:
        self.images = images


def capture(pipe: Any, running: Callable[[], bool]) -> None:
    """Make the pipeline's image processors end a call with `Decoded`, while `running` says that it is one of ours."""
    for processor in list(vars(pipe).values()):
        for method in ("postprocess_video", "postprocess"):
            if callable(real := getattr(processor, method, None)) and not isinstance(processor, torch.nn.Module):
                setattr(processor, method, _taken(processor, real, running))


def _taken(processor: Any, real: Callable[..., Any], running: Callable[[], bool]) -> Callable[..., Any]:
    def take(*args: Any, **kwargs: Any) -> Any:
        images = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        if not running() or images is None:
            return real(*args, **kwargs)
        normal = getattr(processor, "config", {}).get("do_normalize", True)
        raise Decoded(images if normal else images * 2 - 1)

    return take


def plain_images(found: Any) -> Tensor:
    """Return the images on [0, 1] of a pipeline without an image processor as a tensor on [-1, 1]."""
    made = found[0] if isinstance(found, tuple) else found
    images = made if isinstance(made, Tensor) else torch.as_tensor(made)
    if images.shape[-1] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.movedim(-1, 1)
    return images.float() * 2 - 1
