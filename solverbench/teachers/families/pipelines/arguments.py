"""The arguments of a pipeline's call that a user may give: plain values under the pipeline's own names."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solverbench.errors import MissingError, RecordError, SpecError
from solverbench.teachers.families.description import Description
from solverbench.wording import suggest

SET = {
    "prompt": "prompts=FILE gives the prompts",
    "negative_prompt": "negative=TEXT gives it",
    "num_inference_steps": "--nfe gives the number of calls",
    "timesteps": "grids give the levels",
    "sigmas": "grids give the levels",
    "latents": "the noise is each seed's own",
    "generator": "the noise is each seed's own",
    "output_type": "the teacher sets it",
    "return_dict": "the teacher sets it",
    "batch_size": "--batch gives it",
    "eta": "nothing is random in the ODE",
    "num_images_per_prompt": "an image is one seed's",
    "num_videos_per_prompt": "a video is one seed's",
}
"""Arguments of calls that SolverBench sets itself, with the reason or the option to use instead."""

UNGIVABLE = re.compile(r"^callback|embeds|mask$|kwargs|latents")
"""Names of arguments that take tensors or functions."""

IMAGE = re.compile(r"(^|_)image$")
"""Names of arguments that take an image, given as the path of a file."""


def read(description: Description, given: Mapping[str, Any], taken: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the call's arguments from the [call] table and the options of a spec, which win.

    Args:
        given: options that are not the family's own.
        taken: arguments of the pipeline's call, with their defaults.
        kind: name of the pipeline.

    Raises:
        SpecError: an unknown name, one that SolverBench sets, or a value that isn't plain.
        RecordError: the call needs tensors, such as a prior's embeddings.
    """
    known = sorted(key for key in taken if key not in SET and not UNGIVABLE.search(key))
    needed = [key for key, default in taken.items() if default is inspect.Parameter.empty and UNGIVABLE.search(key)]
    if needed:
        raise RecordError(
            asked=description.name, wrong=f"{kind}'s call needs {' and '.join(needed)}, which another pipeline makes",
            remedy="use sb.Teacher around its network",
        )  # fmt: skip
    found: dict[str, Any] = {}
    for key, value in {**description.call, **given}.items():
        if key in SET and key in taken:
            raise SpecError(asked=description.name, wrong=f"{key} isn't given in a call", remedy=SET[key])
        if key not in known:
            raise SpecError(
                asked=description.name, wrong=f"{kind} takes no argument {key!r} that can be given",
                remedy=suggest(key, known, f"it takes {', '.join(known)}."),
            )  # fmt: skip
        found[key] = plain(description.name, key, value) if key not in description.call or key in given else _checked(
            description.name, key, value
        )  # fmt: skip
    strength = found.get("strength", taken.get("strength", 1.0))
    if isinstance(strength, (int, float)) and strength < 1:
        raise SpecError(
            asked=description.name, wrong=f"strength {strength:g}: {kind} starts from an image, not from noise",
            remedy="give strength=1",
        )  # fmt: skip
    return found


def plain(asked: str, key: str, text: Any) -> Any:
    """Return an option's text as the JSON value that it spells, or as text."""
    if not isinstance(text, str):
        return _checked(asked, key, text)
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text
    return _checked(asked, key, value)


def _checked(asked: str, key: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_checked(asked, key, each) for each in value]
    if isinstance(value, dict):
        return {str(name): _checked(asked, key, each) for name, each in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise SpecError(
        asked=asked, wrong=f"{key} = {value!r} isn't a number, true, false, a text, or a list or table of them",
        remedy="leave it out; the pipeline's default holds",
    )  # fmt: skip


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def place(description: Description, text: str) -> Path:
    """Return the path of an image: as it is given, or beside the pipeline's folder."""
    path = Path(text).expanduser()
    return path if path.is_absolute() or path.exists() else description.checkpoint.parent / path


def images(description: Description, found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arguments with images in place of their files' paths, and the sha256 of each such file.

    Raises:
        MissingError: a file is missing or isn't an image.
    """
    made, digests = dict(found), {}
    for key, value in found.items():
        if not IMAGE.search(key) or not isinstance(value, str):
            continue
        path = place(description, value)
        try:
            from PIL import Image

            digests[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            made[key] = Image.open(path, formats=("PNG", "JPEG", "WEBP")).convert("RGB")
        except (OSError, ValueError, ImportError) as error:
            raise MissingError(
                asked=description.name, wrong=f"{key} {path} can't be read ({error})", remedy="give a PNG or JPEG file"
            ) from None
    return made, digests
