"""Number formats of a pipeline's parts: each part gets its inputs in its own, where they differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solverbench.errors import SpecError
from solverbench.teachers.arithmetic import DTYPES
from solverbench.teachers.families.pipelines.networks import networks
from solverbench.wording import suggest

if TYPE_CHECKING:
    from solverbench.teachers.families.description import Description

MADE = re.compile(r"hidden_states|^sample$|^x$|^z$|embeds|pooled|residual|block_samples|added_cond|controlnet_cond")
"""Names of inputs that other parts made: states, encoded prompts, and the outputs of control networks."""

DEFAULT = "default"
"""Key of the format of all parts that a table doesn't name, as in diffusers' own table."""


def of_part(description: Description, name: str) -> torch.dtype:
    """Return the number format of a part."""
    return DTYPES[description.dtypes.get(name, description.dtype)]


def check(description: Description, parts: Mapping[str, Any]) -> None:
    """Raise `SpecError` if a table of formats names no part of the pipeline that has weights."""
    for name in description.dtypes:
        if name not in parts:
            known = [DEFAULT, *sorted(parts)]
            raise SpecError(
                asked=description.name, wrong=f"dtype has no part {name!r}",
                remedy=suggest(name, known, f"it has {', '.join(known)}."),
            )  # fmt: skip


def label(description: Description) -> str:
    """Return the arithmetic as text, with the parts whose format isn't the default: part of every key."""
    others = sorted(name for name, text in description.dtypes.items() if text != description.dtype)
    named = [f"{name}={str(of_part(description, name)).removeprefix('torch.')}" for name in others]
    return " ".join([description.arithmetic.label, *named])


def join(pipe: Any) -> torch.dtype | None:
    """Make networks and decoders take other formats than their own, if the parts' differ; return the networks' then.

    Of a network's inputs by name that holds for `MADE` alone: times and rotary embeddings stay as they are.
    """
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    if len({_format(part) for part in parts}) == 1:
        return None
    sampled = networks(pipe)
    for part in sampled.values():
        part.forward = _cast(part.forward, _format(part))
    for part in parts:
        for method in ("encode", "decode"):
            if callable(real := getattr(part, method, None)):
                setattr(part, method, _cast(real, _format(part)))
    return _format(next(iter(sampled.values())))


def _format(part: Any) -> torch.dtype:
    """Return the format of most of a part's weights; some of its layers may keep float32."""
    found: torch.dtype = part.dtype
    return found


def _cast(real: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def cast(*args: Any, **kwargs: Any) -> Any:
        named = {key: converted(value, dtype) if MADE.search(key) else value for key, value in kwargs.items()}
        return real(*(converted(each, dtype) for each in args), **named)

    return cast


def converted(value: Any, dtype: torch.dtype) -> Any:
    """Return the floating-point tensors in a value, of at least two axes, in another format."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and value.ndim > 1 else value
    if isinstance(value, dict):
        return {key: converted(each, dtype) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(converted(each, dtype) for each in value)
    return value
